# Prints the command line, and the length and FNV-1a hash of the initrd, located according to the boot protocol; then resets.
# Has two entry points: Linux 64-bit (rsi: zero page) and PVH (32-bit code without paging, ebx: start info).
.include "serial.inc"

.set CMD_LINE_PTR, 0x228        # struct boot_params
.set RAMDISK_IMAGE, 0x218
.set RAMDISK_SIZE, 0x21c
.set START_MAGIC, 0x336ec578    # struct hvm_start_info
.set START_MODULES, 12          # u32, the number of modules
.set START_MODULE_LIST, 16      # u64; its entries begin with u64 address, u64 length
.set START_CMDLINE, 24          # u64

.macro report                   # esi: command line, edi: initrd, ebp: initrd length
        mov     ecx, esi
        puts    "cmdline "
        mov     esi, ecx
        putz
        puts    "\ninitrd "
        mov     ebx, ebp
        puthex
        fnv_start
        test    ebp, ebp
        jz      202f
201:    mov     al, [edi]
        fnv_add
        inc     edi
        dec     ebp
        jnz     201b
202:    puts    " hash "
        puthex
        puts    "\n"
        reset
.endm

.code64
.globl start
start:
        mov     edi, [rsi + RAMDISK_IMAGE]
        mov     ebp, [rsi + RAMDISK_SIZE]
        mov     ebx, [rsi + CMD_LINE_PTR]
        puts    "linux64\n"
        mov     esi, ebx
        report

.code32
pvh_start:
        mov     esp, offset stack_top
        cmp     dword ptr [ebx], START_MAGIC
        jne     stranger
        xor     edi, edi
        xor     ebp, ebp
        cmp     dword ptr [ebx + START_MODULES], 1
        jne     no_module
        mov     eax, [ebx + START_MODULE_LIST]
        mov     edi, [eax]
        mov     ebp, [eax + 8]
no_module:
        mov     ebx, [ebx + START_CMDLINE]
        puts    "pvh\n"
        mov     esi, ebx
        report
stranger:
        puts    "no start info\n"
        reset

# XEN_ELFNOTE_PHYS32_ENTRY: the address of the PVH entry point.
.section .note.Xen, "a", @note
        .long   4, 4, 18
        .asciz  "Xen"
        .long   pvh_start

.bss
.balign 16
        .skip   0x1000
stack_top:
