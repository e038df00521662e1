# For measuring, in protected mode, for 0x100000: ecx times a store of 4 bytes to 0xd0000000, where no memory is, then it halts.
# With ecx = 0 that is 2^32 times, which takes hours.
# To be seen: ecx exits, each with four bytes, and nothing else to do between them.
.include "flat.inc"
.code32

start:
        mov     [NOWHERE], eax
        dec     ecx
        jnz     start
        stop
