# Prints a message in real mode: a flat binary for guest address 0, entered at CS:IP 0:0.
#
# Sends "Hello, KVM!" to COM1 with one `out` per byte, then halts.
# Expected: one exit per byte, 11 in total, then the halt.
.include "flat.inc"
.code16

start:
        xor     ax, ax
        mov     ds, ax
        mov     si, offset message
        mov     dx, COM1
next:
        lodsb
        test    al, al
        jz      done
        out     dx, al
        jmp     next
done:
        stop

message:
        .asciz  "Hello, KVM!"
