# Says "ready" and dies of what is typed:
#   t   an exception without a handler for it, for the double fault or for anything else: a triple fault
#   i   cmpxchg16b, which a software KVM doesn't emulate; where it works the guest says "survived" and resets
#   j   a jump to 0xd0000000, where no memory is
.include "serial.inc"

.globl start
start:
        puts    "ready\n"
        getc
        cmp     al, 'i'
        je      instruction
        cmp     al, 'j'
        je      nowhere
        ud2
instruction:
        cmpxchg16b [pair]
        puts    "survived\n"
        reset
nowhere:
        mov     eax, 0xd0000000
        jmp     rax

.bss
.balign 16
pair:   .skip   16
