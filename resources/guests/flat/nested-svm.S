# A guest that runs a guest of its own, by SVM; long mode, for 0x100000, on a processor of AMD's kind.
#
# The inner guest prints "abcd" to the pseudo serial line, a byte at a time, and calls the outer one with `vmmcall`, again and
# again. The outer one prints "!" after each call, and enters the inner one once more.
# To be seen: "abcd!abcd!" and so on, without an end. A processor that has forgotten that it runs the inner guest prints no "!".
# AMD64 Architecture Programmer's Manual, volume 2, §15 and appendix B.
.include "flat.inc"

.set MSR_EFER, 0xc0000080
.set EFER_SVME, 1 << 12
.set MSR_VM_HSAVE_PA, 0xc0010117

.set VMCB, 0x200000             # 4 KiB of zeros, the guest's RAM being fresh
.set HOST_SAVE, 0x201000        # where `vmrun` keeps the outer guest's state
.set STACK, 0x203000            # the inner guest's

# The control area.
.set INTERCEPT_VMRUN, 1 << 0    # required
.set INTERCEPT_VMMCALL, 1 << 1
.set CONTROL_INTERCEPTS, 0x010
.set CONTROL_ASID, 0x058
# The save area.
.set SAVE_CS, 0x410
.set SAVE_SS, 0x420
.set SAVE_DS, 0x430
.set SAVE_GDTR, 0x460
.set SAVE_IDTR, 0x480
.set SAVE_EFER, 0x4d0
.set SAVE_CR4, 0x548
.set SAVE_CR3, 0x550
.set SAVE_CR0, 0x558
.set SAVE_DR7, 0x560
.set SAVE_DR6, 0x568
.set SAVE_RFLAGS, 0x570
.set SAVE_RIP, 0x578
.set SAVE_RSP, 0x5d8

.set CODE, 0x0a9b               # attributes: present, 64-bit code
.set DATA, 0x0c93               # present, writable data
.set VMMCALL_LEN, 3

.macro segment at, attributes   # one of selector 0 that spans 4 GiB
        mov     word ptr [rbx + \at + 2], \attributes
        mov     dword ptr [rbx + \at + 4], -1
.endm

.code64
start:
        mov     ecx, MSR_EFER
        rdmsr
        or      eax, EFER_SVME
        wrmsr
        mov     r8d, eax                # EFER, whose upper half is 0
        mov     ecx, MSR_VM_HSAVE_PA
        mov     eax, HOST_SAVE
        xor     edx, edx
        wrmsr

        mov     ebx, VMCB
        mov     dword ptr [rbx + CONTROL_INTERCEPTS], INTERCEPT_VMRUN | INTERCEPT_VMMCALL
        mov     dword ptr [rbx + CONTROL_ASID], 1
        segment SAVE_CS, CODE
        segment SAVE_SS, DATA
        segment SAVE_DS, DATA
        mov     [rbx + SAVE_EFER], r8
        mov     rax, cr4
        mov     [rbx + SAVE_CR4], rax
        mov     rax, cr3
        mov     [rbx + SAVE_CR3], rax
        mov     rax, cr0
        mov     [rbx + SAVE_CR0], rax
        mov     dword ptr [rbx + SAVE_DR7], 0x400       # as after a reset, like the next two
        mov     dword ptr [rbx + SAVE_DR6], 0xffff0ff0
        mov     dword ptr [rbx + SAVE_RFLAGS], 2
        mov     dword ptr [rbx + SAVE_RIP], offset inner
        mov     dword ptr [rbx + SAVE_RSP], STACK

again:
        mov     eax, VMCB
        vmrun   rax
        # The inner guest's `vmmcall`; the general registers but rax and rsp are still its own.
        mov     al, '!'
        out     PSEUDO_SERIAL, al
        mov     ebx, VMCB
        add     dword ptr [rbx + SAVE_RIP], VMMCALL_LEN
        jmp     again

inner:
        mov     al, 'a'
next:
        out     PSEUDO_SERIAL, al
        inc     al
        cmp     al, 'e'
        jne     next
        vmmcall
        jmp     inner
