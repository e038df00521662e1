# Interrupts in real mode, for 0x1000: a handler of COM1's IRQ 4 echoes what is typed.
#
# Moves the 8259s' vectors to 0x20 and 0x28, away from the processor's exceptions, lets IRQ 4 through and asks COM1 for an
# interrupt whenever a byte has come. Says "ready", and from then on does nothing but halt. On Ctrl-D the handler says "bye"
# and resets the machine.
# To be seen: what is typed comes back; no CPU time between the keys.
.include "flat.inc"
.code16

.set STACK, 0x7000
.set VECTORS, 0x20              # of IRQs 0 to 7
.set VECTOR, VECTORS + 4        # of COM1

.set PIC1, 0x20                 # the first 8259: command, and data at the next port
.set PIC2, 0xa0
.set ICW1, 0x11                 # initialize; three more words follow
.set ICW4, 0x01                 # 8086 mode
.set EOI, 0x20                  # the interrupt in service has been served

.set IER, COM1 + 1              # interrupt enable: bit 0, a byte has come
.set MCR, COM1 + 4              # modem control: DTR, RTS, and OUT2, which on a PC connects the interrupt line
.set LSR, COM1 + 5              # line status: bit 0, a byte has come
.set CTRL_D, 4

.macro port_write port, value   # changes al and dx
        mov     dx, \port
        mov     al, \value
        out     dx, al
.endm

.macro serial_say where         # sends a text up to its NUL; changes al, dx and si
        mov     si, offset \where
        mov     dx, COM1
301:    lodsb
        test    al, al
        jz      302f
        out     dx, al
        jmp     301b
302:
.endm

start:
        cli
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     sp, STACK

        mov     word ptr [VECTOR * 4], offset typed
        mov     word ptr [VECTOR * 4 + 2], 0

        port_write PIC1, ICW1
        port_write PIC2, ICW1
        port_write PIC1 + 1, VECTORS
        port_write PIC2 + 1, VECTORS + 8
        port_write PIC1 + 1, 1 << 2     # the second 8259 is at input 2
        port_write PIC2 + 1, 2
        port_write PIC1 + 1, ICW4
        port_write PIC2 + 1, ICW4
        port_write PIC1 + 1, ~(1 << 4) & 0xff   # masks all but IRQ 4
        port_write PIC2 + 1, 0xff

        port_write MCR, 0x0b
        serial_say ready
        port_write IER, 0x01
asleep:
        sti
        hlt
        jmp     asleep

# The interrupt is an edge, so nothing that waits may be left when it ends: a next byte would make no new one.
typed:
        mov     dx, LSR
        in      al, dx
        test    al, 1
        jz      served
        mov     dx, COM1
        in      al, dx
        cmp     al, CTRL_D
        je      done
        out     dx, al
        jmp     typed
served:
        mov     al, EOI
        out     PIC1, al
        iret
done:
        serial_say bye
        reset

ready:  .asciz  "ready\n"
bye:    .asciz  "bye\n"
