# A guest that crashes, by MODE (16: real mode, at 0x1000; 32: protected mode and 64: long mode, at 0x100000) and by KIND:
#
#   0   a triple fault: a division by zero with an empty interrupt table
#   1   a jump to an address without memory: 0xd0000000; in real mode ffff:fff0, which is 0x10ffe0 and above 1 MiB
#   2   `ud2` without a handler: in protected and long mode the interrupt table has all 256 entries, none of them present. Real
#       mode has no present bit, and an entry of zeros is a handler at 0:0, so it uses the empty table again
#
# ebx holds 0x600dcafe and ecx holds KIND at the crash.
# Expected: the reason in words, these registers, and the bytes at the instruction pointer: (66) f7 f1 is `div ecx`, 0f 0b is
# `ud2`; there are none where there is no memory. AMD processors lose the registers in a triple fault and report those of a
# reset.
.include "flat.inc"

.set TRIPLE, 0
.set JUMP, 1
.set UNDEFINED, 2

.if MODE == 16
.code16
.elseif MODE == 32
.code32
.else
.code64
.endif

start:
.if MODE == 16
        xor     ax, ax
        mov     ds, ax
        lidtd   [handlers]      # a 4-byte base instead of 3 bytes
.else
        lidt    [handlers]
.endif
        mov     ebx, 0x600dcafe
        mov     ecx, KIND

.if KIND == TRIPLE
        div     ecx             # ecx is KIND, 0
.elseif KIND == JUMP
.if MODE == 16
        ljmp    0xffff:0xfff0
.elseif MODE == 32
        mov     eax, NOWHERE
        jmp     eax
.else
        mov     eax, NOWHERE
        jmp     rax
.endif
.else
        ud2
.endif

# The operand of lidt: the table's limit and base, which has 8 bytes in long mode. The empty table is at an address without
# memory, because KVM's emulator ignores the limit in real mode.
.if KIND != UNDEFINED || MODE == 16
.set TABLE_LEN, 1
.set table, NOWHERE
.elseif MODE == 32
.set TABLE_LEN, 256 * 8
.else
.set TABLE_LEN, 256 * 16
.endif

.balign 8
handlers:
        .word   TABLE_LEN - 1
.if MODE == 64
        .quad   table
.else
        .long   table
.endif
.if KIND == UNDEFINED && MODE != 16
.balign 16
table:  .skip   TABLE_LEN
.endif
