# Started by the processor's own reset: an endless loop.
#
# To be seen: all of one CPU's time used, no exit at all, and a monitor that still stops at once when it's told.
.include "reset.inc"

start:
        jmp     start

reset_vector
