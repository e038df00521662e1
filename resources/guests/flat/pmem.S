# Stores to persistent memory, the first device's, at 4 GiB; long mode, at 0x100000. Polls COM1.
#
# Expected: "ready", then for each byte received "stored" once it is in the memory's first byte.
.include "../serial.inc"

.set PMEM_PAGE, 0x100000000 + 0x83      # present, writable, large (AMD64 volume 2, §5.3)
.set PRESENT, 3                         # and writable
.set DIRECTORY, 0x200000                # RAM starts zeroed

.code64
start:
        mov     rax, cr3
        and     rax, -4096
        mov     rax, [rax]              # the first entry of the PML4: the pointers of 512 GiB
        and     rax, -4096
        mov     qword ptr [rax + 4 * 8], DIRECTORY + PRESENT
        mov     rax, PMEM_PAGE
        mov     [DIRECTORY], rax
        mov     rdi, 0x100000000
        puts    "ready\n"
next:
        getc
        mov     [rdi], al
        puts    "stored\n"
        jmp     next
