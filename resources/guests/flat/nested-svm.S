# A guest that runs a nested guest with SVM; long mode, at 0x100000. Requires a processor with SVM.
#
# In a loop, the nested (L2) guest prints "abcd" to the pseudo serial port, a byte at a time, and exits to the outer (L1) guest
# with `vmmcall`. L1 prints "!" after each exit and resumes L2.
# Expected: "abcd!abcd!" and so on, without end. If the vCPU loses its nested state, no "!" is printed.
# AMD64 Architecture Programmer's Manual, volume 2, §15 and appendix B.
.include "flat.inc"

.set MSR_EFER, 0xc0000080
.set EFER_SVME, 1 << 12
.set MSR_VM_HSAVE_PA, 0xc0010117

.set VMCB, 0x200000             # 4 KiB of zeros, since guest RAM starts zeroed
.set HOST_SAVE, 0x201000        # where `vmrun` saves the L1 state
.set STACK, 0x203000            # L2's

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

.macro segment at, attributes   # with selector 0 and a limit of 4 GiB
        mov     word ptr [rbx + \at + 2], \attributes
        mov     dword ptr [rbx + \at + 4], -1
.endm

.code64
start:
        mov     ecx, MSR_EFER
        rdmsr
        or      eax, EFER_SVME
        wrmsr
        mov     r8d, eax                # EFER; its upper half is 0
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
        mov     dword ptr [rbx + SAVE_DR7], 0x400       # the reset value, as are the next two
        mov     dword ptr [rbx + SAVE_DR6], 0xffff0ff0
        mov     dword ptr [rbx + SAVE_RFLAGS], 2
        mov     dword ptr [rbx + SAVE_RIP], offset inner
        mov     dword ptr [rbx + SAVE_RSP], STACK

again:
        mov     eax, VMCB
        vmrun   rax
        # L2 executed `vmmcall`; the general registers except rax and rsp still hold L2's values.
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
