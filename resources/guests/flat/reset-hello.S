# Started by the processor's own reset: "Hello" to the pseudo serial port, one `out` for each letter; then it halts.
#
# To be seen: five exits with a byte each; no CPU time once it has halted.
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
