# Starts at the reset vector: prints "Hello" to the pseudo serial port with one `out` per letter, then halts.
#
# Expected: five exits of one byte each; no CPU time used after the halt.
.include "reset.inc"

.macro letter code
        mov     al, \code
        out     PSEUDO_SERIAL, al
.endm

start:
        letter  'H'
        letter  'e'
        letter  'l'
        letter  'l'
        letter  'o'
        stop

reset_vector
