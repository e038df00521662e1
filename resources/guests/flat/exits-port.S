# For measuring, in real mode, for 0x1000: ecx times `out` of one byte to port 0x80, then it halts. With ecx = 0 that is 2^32
# times, which takes hours.
# To be seen: ecx exits, each with one byte, and nothing else to do between them.
.include "flat.inc"
.code16

start:
        out     0x80, al
        dec     ecx
        jnz     start
        stop
