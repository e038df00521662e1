# A guest whose state is read and set elsewhere, in protected mode, at 0x100000. It has values in general-purpose and SSE
# registers and in memory, and two pending interrupts: one of the local APIC's timer, one of the 8254 by way of the 8259s. It
# writes to the pseudo serial port where a test may stop it, and its results as 8 hexadecimal digits.
#
# Only instructions that KVM's emulator has, for hosts whose KVM emulates all.
#
# Expected: "A", the sum of all values (see SUM), the high half of the TSC's distance to that at "A", then "H". It halts until the
# local APIC's timer has expired once more, 2 s later, and writes "t" and the number of expirations, 2.
.include "flat.inc"

.set STACK, 0x7000
.set IDT, 0x3000                # 256 gates of 8 bytes
.set CODE, 0x10                 # the code segment's selector
.set GATE, 0x8e00               # a present 32-bit interrupt gate

.set PIC1, 0x20                 # the first 8259: command, and data at the next port
.set PIC2, 0xa0
.set ICW1, 0x11                 # initialize; three more words follow
.set ICW4, 0x01                 # 8086 mode
.set EOI, 0x20                  # end of interrupt
.set PIT_VECTOR, 0x20           # line 0 of the 8259s
.set TIMER_VECTOR, 0x40

.set APIC, 0xfee00000           # the local APIC's registers (Intel SDM volume 3, table 11-1)
.set APIC_EOI, APIC + 0xb0
.set SPURIOUS, APIC + 0xf0      # bit 8 enables the APIC
.set IRR, APIC + 0x220          # interrupts 64 to 95 that are pending
.set LVT_TIMER, APIC + 0x320    # one-shot: the vector alone
.set INITIAL_COUNT, APIC + 0x380
.set DIVIDE, APIC + 0x3e0
.set DIVIDE_BY_1, 0xb           # 1 GHz on KVM

.set PIT, 0x40                  # the 8254's channel 0; its control word is 3 ports further
.set RATE_GENERATOR, 0x34       # channel 0, both bytes, mode 2
.set COUNT, 11932               # 100 Hz of 1193182
.set TICKS, 3

.set IN_EBX, 0x11220000
.set IN_MEMORY, 0x3300
.set IN_XMM5_LOW, 0x40
.set IN_XMM5_HIGH, 3
# With one expiration of the timer.
.set SUM, IN_EBX + IN_MEMORY + IN_XMM5_LOW + IN_XMM5_HIGH + 1

.macro port_write port, value   # clobbers al
        mov     al, \value
        out     \port, al
.endm

.macro gate vector, handler     # clobbers eax
        mov     eax, offset \handler
        mov     [IDT + \vector * 8], ax
        mov     word ptr [IDT + \vector * 8 + 2], CODE
        mov     word ptr [IDT + \vector * 8 + 4], GATE
        shr     eax, 16
        mov     [IDT + \vector * 8 + 6], ax
.endm

.macro return                   # like iretd, which the emulator has in real mode only
        push    dword ptr [esp + 8]
        popfd
        ret     8
.endm

.code32
start:
        cli
        mov     esp, STACK
        gate    PIT_VECTOR, tick
        gate    TIMER_VECTOR, expired
        lidt    [idt]

        port_write PIC1, ICW1
        port_write PIC2, ICW1
        port_write PIC1 + 1, PIT_VECTOR
        port_write PIC2 + 1, PIT_VECTOR + 8
        port_write PIC1 + 1, 1 << 2     # the second 8259 is on input 2
        port_write PIC2 + 1, 2
        port_write PIC1 + 1, ICW4
        port_write PIC2 + 1, ICW4
        port_write PIC1 + 1, 0xfe       # only line 0
        port_write PIC2 + 1, 0xff

        mov     eax, cr0
        and     eax, ~(1 << 2)          # EM
        or      eax, 1 << 1             # MP
        mov     cr0, eax
        mov     eax, cr4
        or      eax, 1 << 9             # OSFXSR
        mov     cr4, eax
        movdqu  xmm5, [for_xmm5]
        mov     dword ptr [value], IN_MEMORY
        mov     ebx, IN_EBX

        port_write PIT + 3, RATE_GENERATOR
        port_write PIT, COUNT & 0xff
        port_write PIT, COUNT >> 8
        or      dword ptr [SPURIOUS], 1 << 8
        mov     dword ptr [DIVIDE], DIVIDE_BY_1
        mov     dword ptr [LVT_TIMER], TIMER_VECTOR
        mov     dword ptr [INITIAL_COUNT], 1000000
pends:  test    dword ptr [IRR], 1 << (TIMER_VECTOR - 64)
        jz      pends
        in      al, PIC1                # its pending lines
        test    al, 1
        jz      pends
        rdtsc
        mov     [tsc], eax
        mov     [tsc + 4], edx
        port_write PSEUDO_SERIAL, 'A'

        # Without this state, nothing below is as expected.
        sti
more:   hlt
        cmp     dword ptr [ticks], TICKS
        jb      more
        cli
        add     ebx, [value]
        movdqu  [from_xmm5], xmm5
        add     ebx, [from_xmm5]
        add     ebx, [from_xmm5 + 12]
        add     ebx, [expirations]
        call    hex
        rdtsc
        sub     eax, [tsc]
        sbb     edx, [tsc + 4]
        mov     ebx, edx
        call    hex

        port_write PIC1 + 1, 0xff
        mov     dword ptr [INITIAL_COUNT], 2000000000
        port_write PSEUDO_SERIAL, 'H'
        sti
asleep: hlt
        cmp     dword ptr [expirations], 2
        jb      asleep
        port_write PSEUDO_SERIAL, 't'
        mov     ebx, [expirations]
        call    hex
        cli
        stop

hex:    mov     ecx, 8                  # writes ebx; clobbers eax and ecx
digit:  rol     ebx, 4
        mov     al, bl
        and     al, 0xf
        add     al, '0'
        cmp     al, '9'
        jbe     print
        add     al, 'a' - '0' - 10
print:  out     PSEUDO_SERIAL, al
        loop    digit
        ret

tick:   push    eax
        inc     dword ptr [ticks]
        port_write PIC1, EOI
        pop     eax
        return

expired:
        inc     dword ptr [expirations]
        mov     dword ptr [APIC_EOI], 0
        return

        .balign 16
for_xmm5: .long IN_XMM5_LOW, 0, 0, IN_XMM5_HIGH
from_xmm5: .long 0, 0, 0, 0
tsc:    .quad   0
ticks:  .long   0
expirations: .long 0
value:  .long   0
idt:    .word   256 * 8 - 1
        .long   IDT
