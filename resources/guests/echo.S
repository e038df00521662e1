# Prints "ready", echoes its input, and resets on Ctrl-D.
.include "serial.inc"

.globl start
start:
        puts    "ready\n"
next:
        getc
        cmp     al, 4
        je      done
        putc
        jmp     next
done:
        puts    "bye\n"
        reset
