# A benchmark in real mode, at 0x1000: writes 4096 bytes to port 0x80 with `rep outsb`, ecx times, then halts. ecx = 0 means 2^32
# times, which takes days. The bytes are read from 0x1000: this program and what follows it.
# Expected: 4096 bytes per iteration, in a single exit if KVM batches string output, otherwise in 4096 exits.
.include "flat.inc"
.code16

start:
        xor     ax, ax
        mov     ds, ax
        mov     dx, 0x80
        cld
        mov     ebx, ecx
next:
        mov     si, offset start
        mov     cx, 4096
        rep outsb
        dec     ebx
        jnz     next
        stop
