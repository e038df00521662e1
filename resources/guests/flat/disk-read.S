# Reads from a disk, the first virtio device, in protected mode, for 0x100000: a sector for each byte that is typed at COM1, each
# 4 MiB after the one before, so that no read-ahead of the host's has it. Polls both.
#
# To be seen: "ready"; then each byte that was typed, as soon as its sector is there.
.include "../serial.inc"
.set DEVICE, 0
.include "virtio.inc"

.set HEADER, 0x4300             # of the request: type, reserved, sector (virtio 1.2 §5.2.6)
.set STATUS, 0x4310
.set BUFFER, 0x5000
.set STACK, 0x7000
.set STRIDE, 0x2000             # sectors

.macro descriptor number, address, len, flags, next
        mov     dword ptr [QUEUE_RING + 16 * \number], \address
        mov     dword ptr [QUEUE_RING + 16 * \number + 8], \len
        mov     dword ptr [QUEUE_RING + 16 * \number + 12], (\flags) | (\next) << 16
.endm

.code32
start:
        mov     esp, STACK
        init_driver 4
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
