# Page tables in the image, where the program kvm-hello-world writes them into its guest's memory: at 0x2000, with a page of 2 MiB
# that maps all of its memory to itself (Intel SDM volume 3 §4.5). The linker is told the address.

.set PRESENT_WRITE, 3
.set LARGE, 1 << 7              # in a page directory: a page of 2 MiB

.section .tables, "a"
        .quad   0x3000 + PRESENT_WRITE          # PML4, 0x2000: the first 512 GiB
        .org    0x1000
        .quad   0x4000 + PRESENT_WRITE          # PDPT, 0x3000: the first GiB
        .org    0x2000
        .quad   0 + LARGE + PRESENT_WRITE       # page directory, 0x4000: the first 2 MiB
        .org    0x3000
