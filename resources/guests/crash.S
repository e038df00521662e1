# Prints "ready", then crashes in a way that depends on the character typed:
#   t   an exception with no handlers installed, not even for the double fault: a triple fault
#   i   cmpxchg16b, which a software KVM doesn't emulate; where it works, the guest prints "survived" and resets
#   j   a jump to 0xd0000000, where there is no memory
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
