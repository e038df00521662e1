# For measuring, in real mode, for 0x1000: ecx times `rep outsb` of 4096 bytes to port 0x80, then it halts. With ecx = 0 that is
# 2^32 times, which takes days. The bytes are those from 0x1000 on, this program and what is behind it.
# To be seen: 4096 bytes for each of ecx, in one exit where the KVM hands a string over whole, in 4096 where it doesn't.
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
