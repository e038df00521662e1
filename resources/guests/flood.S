# Prints a counter from 0 as lines of 8 hex digits, as fast as possible, without checking the line status. Resets after LINES
# lines, or never if LINES is 0.
.include "serial.inc"

.globl start
start:
        mov     dx, COM1
        xor     ebx, ebx
line:
        mov     ecx, 8
digit:
        rol     ebx, 4
        mov     al, bl
        and     al, 15
        cmp     al, 10
        jb      decimal
        add     al, 'a' - '0' - 10
decimal:
        add     al, '0'
        out     dx, al
        dec     ecx
        jnz     digit
        mov     al, '\n'
        out     dx, al
        inc     ebx
        cmp     ebx, LINES
        jne     line
        reset
