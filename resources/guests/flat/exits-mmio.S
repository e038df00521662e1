# A benchmark in protected mode, at 0x100000: stores 4 bytes to 0xd0000000, where there is no memory, ecx times, then halts.
# ecx = 0 means 2^32 times, which takes hours.
# Expected: ecx exits of four bytes each, with no other work in between.
.include "flat.inc"
.code32

start:
        mov     [NOWHERE], eax
        dec     ecx
        jnz     start
        stop
