# Prints "ready", reads COUNT bytes, prints their FNV-1a hash, and resets. With CHATTY=1 it also prints a "y" for each byte, to
# keep both directions busy at the same time.
.include "serial.inc"

.globl start
start:
        puts    "ready\n"
        fnv_start
        mov     ecx, COUNT
next:
        getc
        fnv_add
.if CHATTY
        mov     al, 'y'
        mov     dx, COM1
        out     dx, al
.endif
        dec     ecx
        jnz     next
        puts    "\nhash "
        puthex
        puts    "\n"
        reset
