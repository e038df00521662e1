# The header and entry point of multiboot.c: loads its own segments and stack, then calls C.
# Source: Multiboot Specification 0.6.96 §3.1 (header) and §3.2 (machine state).
.intel_syntax noprefix

.set MAGIC, 0x1badb002
.set PAGE_ALIGN, 1 << 0         # modules are page-aligned
.set MEMORY_INFO, 1 << 1        # mem_* and the memory map are requested
.set FLAGS, PAGE_ALIGN | MEMORY_INFO

# Selectors that no loader is likely to use, so the CS that the kernel prints is known to be its own.
.set CODE, 0x28
.set DATA, 0x30

.section .multiboot, "a"
.balign 4
        .long   MAGIC
        .long   FLAGS
        .long   -(MAGIC + FLAGS)

.text
.globl start
start:
        mov     esp, offset stack_top
        lgdt    [gdt_operand]
        ljmp    CODE, offset own_segments
own_segments:
        mov     ecx, DATA
        mov     ds, ecx
        mov     es, ecx
        mov     ss, ecx
        push    ebx             # the info structure
        push    eax             # the magic number
        call    kernel_main
asleep:
        cli
        hlt
        jmp     asleep

.data
.balign 8
gdt:
        .skip   CODE
        .quad   0x00cf9b000000ffff      # code: 4 GiB from 0, 32-bit, execute and read
        .quad   0x00cf93000000ffff      # data: 4 GiB from 0, read and write
gdt_operand:
        .word   gdt_operand - gdt - 1
        .long   gdt

.bss
.balign 16
        .skip   4096
stack_top:
