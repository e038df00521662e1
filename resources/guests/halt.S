# Prints "ready" and halts with interrupts disabled: it reads no input and never runs again.
.include "serial.inc"

.globl start
start:
        puts    "ready\n"
asleep:
        cli
        hlt
        jmp     asleep
