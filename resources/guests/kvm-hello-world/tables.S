# Page tables in the image, at the address where kvm-hello-world writes them into guest memory: 0x2000, with one 2 MiB page that
# identity-maps all of its memory (Intel SDM volume 3 §4.5). The address is set on the linker's command line.

.set PRESENT_WRITE, 3
.set LARGE, 1 << 7              # in a page directory: a 2 MiB page

.section .tables, "a"
        .quad   0x3000 + PRESENT_WRITE          # PML4, 0x2000: the first 512 GiB
        .org    0x1000
        .quad   0x4000 + PRESENT_WRITE          # PDPT, 0x3000: the first GiB
        .org    0x2000
        .quad   0 + LARGE + PRESENT_WRITE       # page directory, 0x4000: the first 2 MiB
        .org    0x3000
