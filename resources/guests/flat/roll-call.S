# Counts the processors that start, at 0x100000 in protected mode.
#
# The first processor copies a real-mode program below 1 MiB and starts all others there at once with INIT and SIPI. Each marks
# its APIC id, as reported by CPUID, in a table and halts. The first counts the ids in the table and prints the number of
# processors, including itself, whenever it changes.
# Expected: numbers that rise to the number of processors. It never ends on its own.
.include "flat.inc"

.set TABLE, 0x10000             # a byte for each APIC id up to 4095: 1 once that processor has started
.set TABLE_LEN, 0x1000
.set TRAMPOLINE, 0x8000         # where the others start: a page below 1 MiB
.set STACK, 0x7000
.set EXTENDED_TOPOLOGY, 0xb     # the CPUID leaf with the 32-bit APIC id, in EDX

.set APIC, 0xfee00000           # the local APIC's registers (Intel SDM volume 3, table 11-1)
.set SPURIOUS, APIC + 0xf0      # bit 8 enables the APIC
.set ICR_LOW, APIC + 0x300
.set INIT_OTHERS, 0xc4500       # to all except self: assert, INIT
.set SIPI_OTHERS, 0xc4600       # to all except self: assert, start-up; the low byte is the page number

.code32
start:
        mov     esp, STACK
        mov     esi, offset other
        mov     edi, TRAMPOLINE
        mov     ecx, offset other_end - other
        cld
        rep movsb

        or      dword ptr [SPURIOUS], 1 << 8
        mov     dword ptr [ICR_LOW], INIT_OTHERS
        mov     dword ptr [ICR_LOW], SIPI_OTHERS | TRAMPOLINE >> 12
        xor     ebp, ebp        # the last number printed

again:
        mov     eax, 1          # this processor
        mov     esi, TABLE
        mov     ecx, TABLE_LEN
sum:
        movzx   edx, byte ptr [esi]
        add     eax, edx
        inc     esi
        dec     ecx
        jnz     sum
        cmp     eax, ebp
        je      again
        mov     ebp, eax
        call    decimal
        mov     al, '\n'
        out     DEBUG_CONSOLE, al
        jmp     again

# Prints eax in decimal.
decimal:
        mov     ebx, 10
        xor     ecx, ecx
digit:
        xor     edx, edx
        div     ebx
        push    edx
        inc     ecx
        test    eax, eax
        jnz     digit
say_digit:
        pop     eax
        add     al, '0'
        out     DEBUG_CONSOLE, al
        dec     ecx
        jnz     say_digit
        ret

# The other processors' program, which runs from the copy in real mode.
.code16
other:
        mov     ax, TABLE >> 4
        mov     ds, ax
        mov     eax, EXTENDED_TOPOLOGY
        xor     ecx, ecx
        cpuid
        and     edx, TABLE_LEN - 1
        mov     byte ptr [edx], 1
        cli
        stop
other_end:
