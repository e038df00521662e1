# A benchmark in real mode, at 0x1000: writes one byte to port 0x80 with `out`, ecx times, then halts. ecx = 0 means 2^32 times,
# which takes hours.
# Expected: ecx exits of one byte each, with no other work in between.
.include "flat.inc"
.code16

start:
        out     0x80, al
        dec     ecx
        jnz     start
        stop
