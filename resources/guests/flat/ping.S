# Two processors take turns counting to 1,000, at 0x100000 in protected mode.
#
# The first copies a real-mode program below 1 MiB and starts the second there with INIT and SIPI. From then on the first makes
# the count odd and the second makes it even, each waiting for the other. At 1,000 the second prints "second done" on the debug
# console and halts; then the first prints "pong" and the count, and resets the machine.
# Expected: "second done", then "pong 1000". Without a second processor, the first waits forever.
.include "flat.inc"

.set COUNT, 0x3000              # u32: the shared count
.set DONE, 0x3004               # u32: 1 once the second processor is done
.set TRAMPOLINE, 0x8000         # where the second processor starts: a page below 1 MiB
.set LIMIT, 1000
.set STACK, 0x7000

.set APIC, 0xfee00000           # the local APIC's registers (Intel SDM volume 3, table 11-1)
.set SPURIOUS, APIC + 0xf0      # bit 8 enables the APIC
.set ICR_LOW, APIC + 0x300
.set ICR_HIGH, APIC + 0x310     # bits 24 to 31: destination
.set INIT, 0x4500               # assert, INIT
.set SIPI, 0x4600               # assert, start-up; the low byte is the page number
.set SECOND, 1 << 24            # the APIC id of the second processor

.code32
start:
        mov     esp, STACK
        mov     esi, offset second
        mov     edi, TRAMPOLINE
        mov     ecx, offset second_end - second
        cld
        rep movsb

        or      dword ptr [SPURIOUS], 1 << 8
        mov     dword ptr [ICR_HIGH], SECOND
        mov     dword ptr [ICR_LOW], INIT
        call    delay
        mov     dword ptr [ICR_HIGH], SECOND
        mov     dword ptr [ICR_LOW], SIPI | TRAMPOLINE >> 12

# Even: the first processor's turn.
first_turn:
        mov     eax, [COUNT]
        cmp     eax, LIMIT
        je      counted
        test    al, 1
        jnz     wait_first
        inc     eax
        mov     [COUNT], eax
wait_first:
        pause
        jmp     first_turn

counted:
        pause
        cmp     dword ptr [DONE], 0
        je      counted
        say     pong, DEBUG_CONSOLE
        mov     eax, [COUNT]
        call    decimal
        mov     al, '\n'
        out     DEBUG_CONSOLE, al
        reset

# The delay between INIT and SIPI. Only hardware needs it; a vCPU doesn't.
delay:
        mov     ecx, 1000
paused:
        pause
        dec     ecx
        jnz     paused
        ret

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

pong:   .asciz  "pong "

# The second processor's program. It runs from the copy, in real mode with CS = TRAMPOLINE / 16, so its jumps are relative and
# its data is addressed by its offset from the start.
.code16
second:
        xor     ax, ax
        mov     ds, ax
# Odd: the second processor's turn.
second_turn:
        mov     eax, [COUNT]
        cmp     eax, LIMIT
        je      second_counted
        test    al, 1
        jz      wait_second
        inc     eax
        mov     [COUNT], eax
wait_second:
        pause
        jmp     second_turn
second_counted:
        mov     si, TRAMPOLINE + (second_done - second)
next:
        lodsb
        test    al, al
        jz      second_end_of_text
        out     DEBUG_CONSOLE, al
        jmp     next
second_end_of_text:
        mov     dword ptr [DONE], 1
        cli
        stop
second_done:
        .asciz  "second done\n"
second_end:
