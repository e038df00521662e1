# Prints the memory map in the zero page (rsi), one line "START LENGTH TYPE" in hex per entry. Then reports whether its BSS is
# zeroed, and whether the first and last 8 bytes of the last RAM entry retain what is written to them; these may be above
# 4 GiB, which the boot page tables don't map. Then resets.
.include "serial.inc"

.set E820_COUNT, 0x1e8          # struct boot_params: u8, the number of entries
.set E820_TABLE, 0x2d0          # 20 bytes each: u64 start, u64 length, u32 type
.set E820_RAM, 1
.set WINDOW, 0x7fc0000000       # the last GiB that the boot PDPT can map, entry 511

.macro puthex64 where           # sends a u64 from memory as 16 digits
        mov     ebx, [\where + 4]
        puthex
        mov     ebx, [\where]
        puthex
.endm

.globl start
start:
        movzx   ebp, byte ptr [rsi + E820_COUNT]
        lea     rdi, [rsi + E820_TABLE]
entry:
        puthex64 rdi
        puts    " "
        puthex64 rdi + 8
        puts    " "
        mov     ebx, [rdi + 16]
        puthex
        puts    "\n"
        cmp     dword ptr [rdi + 16], E820_RAM
        jne     other
        mov     r8, [rdi]       # r8..r9: the last RAM entry so far
        mov     r9, [rdi + 8]
        add     r9, r8
other:
        add     rdi, 20
        dec     ebp
        jnz     entry

        mov     edi, offset zeros
        mov     ecx, ZEROS / 8
look:
        cmp     qword ptr [rdi], 0
        jne     dirty
        add     rdi, 8
        dec     ecx
        jnz     look
        puts    "bss zero\n"
        jmp     touch_ram
dirty:
        puts    "bss dirty\n"

touch_ram:
        mov     r10, r8
        call    touch
        puts    "first word ok\n"
        lea     r10, [r9 - 8]
        call    touch
        puts    "last word ok\n"
        reset

# Maps the 2 MiB around r10 at WINDOW, writes 8 bytes at r10 and reads them back; halts forever if they differ. The mapping is
# rewritten for each address; reloading CR3 flushes the old one.
touch:
        mov     rax, cr3
        and     rax, -0x1000
        mov     rax, [rax]              # PML4 entry 0: the PDPT
        and     rax, -0x1000
        mov     ecx, offset directory
        or      rcx, 3                  # present, writable
        mov     [rax + 511 * 8], rcx
        mov     rcx, r10
        and     rcx, -0x200000
        or      rcx, 0x83               # present, writable, 2 MiB
        mov     [directory], rcx
        mov     rax, cr3
        mov     cr3, rax
        mov     rcx, r10
        and     ecx, 0x1fffff
        mov     rax, WINDOW
        add     rcx, rax
        mov     rax, 0x1122334455667788
        mov     [rcx], rax
        cmp     [rcx], rax
        jne     asleep
        ret
asleep:
        puts    "memory lost what was written\n"
        cli
        hlt
        jmp     asleep

.bss
.set ZEROS, 0x10000
.balign 0x1000
directory:
        .skip   0x1000
zeros:  .skip   ZEROS
