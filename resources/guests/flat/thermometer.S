# Drives a device that isn't built into the monitor, at 0x1000: the thermometer in crates/machine/examples/thermometer.rs.
#
# Sets the alarm to 20 degrees and halts until IRQ 5. The handler ends the monitor through a debug exit with the thermometer's
# reading.
# Expected: exit code 43, from 21 degrees: (21 << 1) | 1.
.include "flat.inc"
.code16

.set STACK, 0x7000
.set VECTORS, 0x20              # for IRQs 0 to 7
.set VECTOR, VECTORS + 5        # for the thermometer

.set PIC1, 0x20                 # the first 8259: command, and data at the next port
.set PIC2, 0xa0
.set ICW1, 0x11                 # initialize; three more words follow
.set ICW4, 0x01                 # 8086 mode

.set DEGREES, 0x90
.set ALARM, 0x91
.set DEBUG_EXIT, 0xf4

.macro port_write port, value   # clobbers al
        mov     al, \value
        out     \port, al
.endm

start:
        cli
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     sp, STACK

        mov     word ptr [VECTOR * 4], offset warm
        mov     word ptr [VECTOR * 4 + 2], 0

        port_write PIC1, ICW1
        port_write PIC2, ICW1
        port_write PIC1 + 1, VECTORS
        port_write PIC2 + 1, VECTORS + 8
        port_write PIC1 + 1, 1 << 2     # the second 8259 is on input 2
        port_write PIC2 + 1, 2
        port_write PIC1 + 1, ICW4
        port_write PIC2 + 1, ICW4
        port_write PIC1 + 1, ~(1 << 5) & 0xff   # masks all but IRQ 5
        port_write PIC2 + 1, 0xff

        port_write ALARM, 20
        sti
        stop

warm:
        in      al, DEGREES
        out     DEBUG_EXIT, al
        stop
