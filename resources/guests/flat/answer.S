# The same program for four processor modes, selected by MODE:
#
#   16   real mode, at 0x1000               stores 2 bytes
#   32   protected mode, at 0x100000        stores 4 bytes
#   33   the same with paging               stores 4 bytes
#   64   long mode, at 0x100000             stores 8 bytes
#
# It checks that the processor is in MODE, prints "Hello, World!" to the debug console, stores 42 at 0x400 and halts with 42 in
# the full accumulator. In any other mode it prints and stores nothing, and halts with 0.
# Expected: the text, rax = 42, and 42 at 0x400 in as many bytes as listed above. A KVM that supports paging in long mode only
# shuts the processor down before the first instruction of MODE 33.
.include "flat.inc"

.set ANSWER, 42
.set STORED_AT, 0x400
.set CR0_PE, 1 << 0             # protected mode
.set CR0_PG, 1 << 31            # paging
.set MSR_EFER, 0xc0000080
.set EFER_LMA, 1 << 10          # long mode is active

.if MODE == 16
.code16
.elseif MODE == 64
.code64
.else
.code32
.endif

start:
.if MODE == 16
        xor     ax, ax
        mov     ds, ax
        mov     eax, cr0
        test    eax, CR0_PE
        jnz     stranger
.elseif MODE == 32
        mov     eax, cr0
        and     eax, CR0_PE | CR0_PG
        cmp     eax, CR0_PE
        jne     stranger
.elseif MODE == 33
        mov     eax, cr0
        and     eax, CR0_PE | CR0_PG
        cmp     eax, CR0_PE | CR0_PG
        jne     stranger
.else
        mov     ecx, MSR_EFER
        rdmsr
        test    eax, EFER_LMA
        jz      stranger
.endif
        say     message, DEBUG_CONSOLE
.if MODE == 16
        mov     eax, ANSWER
        mov     [STORED_AT], ax
.elseif MODE == 64
        mov     rax, ANSWER
        mov     [STORED_AT], rax
.else
        mov     eax, ANSWER
        mov     [STORED_AT], eax
.endif
        stop

stranger:
        xor     eax, eax
        stop

message:
        .asciz  "Hello, World!"
