# A message from real mode: a flat binary for guest address 0, entered at CS:IP 0:0.
#
# Sends "Hello, KVM!" to COM1, one `out` for each byte, up to the NUL; then halts.
# To be seen: each byte as an exit of its own, 11 in all, then the halt.
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
