# Reads from a disk (KIND=0) or writes to it without ever flushing it (KIND=1), the first virtio device, in protected mode, at
# 0x100000: one sector for each byte received on COM1, each 4 MiB after the previous one, beyond the host's read-ahead. Polls COM1
# and the disk. Ctrl-D resets the machine.
#
# Expected: "ready", then each byte echoed once its sector has been read or written.
.include "../serial.inc"
.set DEVICE, 0
.include "virtio.inc"

.set HEADER, 0x4300             # request header: type, reserved, sector (virtio 1.2 §5.2.6)
.set STATUS, 0x4310
.set BUFFER, 0x5000
.set DIRECTION, WRITABLE * (1 - KIND)
.set STACK, 0x7000
.set STRIDE, 0x2000             # sectors
.set CTRL_D, 4
.set FLUSH, 1 << 9              # VIRTIO_BLK_F_FLUSH, without which each write would be flushed

.macro descriptor number, address, len, flags, next
        mov     dword ptr [QUEUE_RING + 16 * \number], \address
        mov     dword ptr [QUEUE_RING + 16 * \number + 8], \len
        mov     dword ptr [QUEUE_RING + 16 * \number + 12], (\flags) | (\next) << 16
.endm

.code32
start:
        mov     esp, STACK
        init_driver 4, FLUSH
        mov     dword ptr [HEADER], KIND
        descriptor 0, HEADER, 16, NEXT, 1
        descriptor 1, BUFFER, 512, NEXT | DIRECTION, 2
        descriptor 2, STATUS, 1, WRITABLE, 0
        puts    "ready\n"
        xor     edi, edi                # number of requests so far
next:
        getc
        cmp     al, CTRL_D
        je      reset
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
reset:
        mov     al, 0xfe                # the keyboard controller's reset
        out     0x64, al
        hlt
