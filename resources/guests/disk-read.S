# Reads from a disk, the first virtio device, in protected mode, for 0x100000: a sector for each byte that is typed at COM1, each
# 4 MiB after the one before, so that no read-ahead of the host's has it. Polls both.
#
# To be seen: "ready"; then each byte that was typed, as soon as its sector is there.
.include "serial.inc"

.set REGISTERS, 0xd0000000      # virtio 1.2 §4.2.2
.set QUEUE_RING, 0x4000         # the descriptors; the other parts of the queue follow
.set AVAIL, 0x4100
.set USED, 0x4200
.set HEADER, 0x4300             # of the request: type, reserved, sector (virtio 1.2 §5.2.6)
.set STATUS, 0x4310
.set BUFFER, 0x5000
.set STACK, 0x7000
.set NEXT, 1                    # flags of a descriptor: another follows
.set WRITABLE, 2                # the device writes it
.set STRIDE, 0x2000             # sectors

.macro register offset, value
        mov     dword ptr [REGISTERS + \offset], \value
.endm

.macro descriptor number, address, len, flags, next
        mov     dword ptr [QUEUE_RING + 16 * \number], \address
        mov     dword ptr [QUEUE_RING + 16 * \number + 8], \len
        mov     dword ptr [QUEUE_RING + 16 * \number + 12], (\flags) | (\next) << 16
.endm

.code32
start:
        mov     esp, STACK
# The driver's initialization (virtio 1.2 §3.1.1): reset, acknowledge, driver, features, queue, ready.
        register 0x70, 0
        register 0x70, 1
        register 0x70, 3
        register 0x24, 1
        register 0x20, 1                # VIRTIO_F_VERSION_1, bit 32
        register 0x70, 11
        register 0x30, 0
        register 0x38, 4
        register 0x80, QUEUE_RING
        register 0x90, AVAIL
        register 0xa0, USED
        register 0x44, 1
        register 0x70, 15

        descriptor 0, HEADER, 16, NEXT, 1
        descriptor 1, BUFFER, 512, NEXT | WRITABLE, 2
        descriptor 2, STATUS, 1, WRITABLE, 0
        puts    "ready\n"
        xor     edi, edi                # requests so far
next:
        getc
        movzx   ebp, al
        mov     eax, edi
        imul    eax, eax, STRIDE
        mov     [HEADER + 8], eax
        inc     edi
        mov     [AVAIL + 2], di         # descriptor 0 again
        register 0x50, 0
waiting:
        pause
        cmp     [USED + 2], di
        jne     waiting
        mov     eax, ebp
        putc
        jmp     next
