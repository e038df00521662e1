# A virtio device's interrupt, in protected mode, at 0x100000: requests 16 bytes from the entropy device number DEVICE and halts
# until it interrupts on line IRQ. Lines below 16 are delivered by the 8259s, the others by the IO-APIC. All other lines are
# masked, so only this one can wake the guest.
#
# Prints "interrupt" on the debug console once the device reports the buffer as used, and resets the machine.
# Expected: "interrupt". If the device is on another line, the guest waits forever.
.include "flat.inc"
.include "virtio.inc"

.set STACK, 0x7000
.set IDT, 0x3000                # 256 gates of 8 bytes
.set CODE, 0x10                 # the code segment's selector
.set GATE, 0x8e00               # a present 32-bit interrupt gate

.set PIC1, 0x20                 # the first 8259: command, and data at the next port
.set PIC2, 0xa0
.set ICW1, 0x11                 # initialize; three more words follow
.set ICW4, 0x01                 # 8086 mode
.set EOI, 0x20                  # end of interrupt
.set VECTORS, 0x20              # for the 8259s' lines; the IO-APIC's line continues the numbering

.set APIC, 0xfee00000           # the local APIC's registers (Intel SDM volume 3, table 11-1)
.set APIC_EOI, APIC + 0xb0
.set SPURIOUS, APIC + 0xf0      # bit 8 enables the APIC
.set IOREGSEL, 0xfec00000       # the IO-APIC's index (82093AA §3.1)
.set IOWIN, 0xfec00010          # and the register that it selects
.set REDIRECTION, 0x10 + 2 * IRQ # the line's entry, low half; the high half, with the APIC id in its upper byte, follows

.set BUFFER, 0x5000

.macro port_write port, value   # clobbers al
        mov     al, \value
        out     \port, al
.endm

.code32
start:
        cli
        mov     esp, STACK
        mov     eax, offset interrupt
        mov     [IDT + (VECTORS + IRQ) * 8], ax
        mov     word ptr [IDT + (VECTORS + IRQ) * 8 + 2], CODE
        mov     word ptr [IDT + (VECTORS + IRQ) * 8 + 4], GATE
        shr     eax, 16
        mov     [IDT + (VECTORS + IRQ) * 8 + 6], ax
        lidt    [idt]

        port_write PIC1, ICW1
        port_write PIC2, ICW1
        port_write PIC1 + 1, VECTORS
        port_write PIC2 + 1, VECTORS + 8
        port_write PIC1 + 1, 1 << 2     # the second 8259 is on input 2
        port_write PIC2 + 1, 2
        port_write PIC1 + 1, ICW4
        port_write PIC2 + 1, ICW4
.if IRQ < 8
        port_write PIC1 + 1, ~(1 << IRQ) & 0xff
        port_write PIC2 + 1, 0xff
.elseif IRQ < 16
        port_write PIC1 + 1, ~(1 << 2) & 0xff
        port_write PIC2 + 1, ~(1 << (IRQ - 8)) & 0xff
.else
        port_write PIC1 + 1, 0xff
        port_write PIC2 + 1, 0xff
        or      dword ptr [SPURIOUS], 1 << 8
        mov     dword ptr [IOREGSEL], REDIRECTION + 1
        mov     dword ptr [IOWIN], 0            # to the processor with APIC id 0
        mov     dword ptr [IOREGSEL], REDIRECTION
        mov     dword ptr [IOWIN], VECTORS + IRQ # edge-triggered, active high, unmasked
.endif

        init_driver 2

        mov     dword ptr [QUEUE_RING], BUFFER
        mov     dword ptr [QUEUE_RING + 8], 16
        mov     word ptr [QUEUE_RING + 12], WRITABLE
        mov     word ptr [AVAIL + 2], 1 # one chain: descriptor 0
        register 0x50, 0
asleep:
        sti
        hlt
        jmp     asleep

interrupt:
        mov     ebx, [REGISTERS + 0x60]
        mov     [REGISTERS + 0x64], ebx
.if IRQ < 16
        port_write PIC1, EOI
        port_write PIC2, EOI
.else
        mov     dword ptr [APIC_EOI], 0
.endif
        test    bl, 1                   # a buffer has been used
        jz      other
        cmp     word ptr [USED + 2], 1
        jne     other
        say     text, DEBUG_CONSOLE
        reset
other:
        iretd

text:   .asciz  "interrupt\n"
idt:    .word   256 * 8 - 1
        .long   IDT
