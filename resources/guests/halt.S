# Says "ready" and halts with interrupts off: it never reads what is typed and never runs again.
.include "serial.inc"

.globl start
start:
        puts    "ready\n"
asleep:
        cli
        hlt
        jmp     asleep
