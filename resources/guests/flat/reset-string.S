# Starts at the reset vector: prints "Hello, World!" to the pseudo serial port with one string instruction, then halts.
#
# Expected: all 13 bytes in order, in a single exit if KVM batches string output, otherwise in 13 exits.
.include "reset.inc"

start:
        mov     ax, cs
        mov     ds, ax
        cld
        mov     si, offset message
        mov     cx, offset message_end - message
        mov     dx, PSEUDO_SERIAL
        rep outsb
        stop

message:
        .ascii  "Hello, World!"
message_end:

reset_vector
