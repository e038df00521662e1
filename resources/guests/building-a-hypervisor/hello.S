; The program of "Building a hypervisor, 1: KVM Introduction", as it is listed there, with the three labels that the copy on the
; web has lost: loop, end and message. Built by `nasm -fbin hello.S -o hello`, for a machine of 4 KiB, at 0 in real mode.
;
; To be seen: eleven exits with a byte each, then the halt.

; Output to port 0x3f8
mov dx, 0x3f8

; Store the address of the message in bx, so we can increment it
mov bx, message

loop:
    ; Load a byte from `bx` into the `al` register
    mov al, [bx]

    ; Jump to the `hlt` instruction if we encountered the NUL terminator
    cmp al, 0
    je end

    ; Output to the serial port
    out dx, al
    ; Increment `bx` by one byte to point to the next character
    inc bx

    jmp loop

end:
    hlt

message:
    db "Hello, KVM!", 0
