# Interrupts in real mode, at 0x1000: a handler for COM1's IRQ 4 echoes its input.
#
# Remaps the 8259s' vectors to 0x20 and 0x28, away from the processor's exceptions, unmasks IRQ 4 and enables COM1's
# received-data interrupt. Prints "ready", then only halts. On Ctrl-D the handler prints "bye" and resets the machine.
#
# Expected: input is echoed; no CPU time is used between keystrokes.
.include "flat.inc"
.code16

.set STACK, 0x7000
.set VECTORS, 0x20              # for IRQs 0 to 7
.set VECTOR, VECTORS + 4        # for COM1

.set PIC1, 0x20                 # the first 8259: command, and data at the next port
.set PIC2, 0xa0
.set ICW1, 0x11                 # initialize; three more words follow
.set ICW4, 0x01                 # 8086 mode
.set EOI, 0x20                  # end of interrupt

.set IER, COM1 + 1              # interrupt enable: bit 0, received data
.set MCR, COM1 + 4              # modem control: DTR, RTS, and OUT2, which gates the interrupt line on a PC
.set LSR, COM1 + 5              # line status: bit 0, data ready
.set CTRL_D, 4

.macro port_write port, value   # clobbers al and dx
        mov     dx, \port
        mov     al, \value
        out     dx, al
.endm

.macro serial_say where         # sends a NUL-terminated string; clobbers al, dx and si
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
        port_write PIC1 + 1, 1 << 2     # the second 8259 is on input 2
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

# The interrupt is edge-triggered: the handler must read until nothing is pending, or the next byte raises no new edge.
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
