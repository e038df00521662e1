# Starts at the reset vector: an endless loop.
#
# Expected: one CPU fully used, no exits, and a monitor that still stops at once on request.
.include "reset.inc"

start:
        jmp     start

reset_vector
