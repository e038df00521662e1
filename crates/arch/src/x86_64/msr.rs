//! Model-specific registers that firmware would have set.

use kvm_bindings::kvm_msr_entry;

/// IA32_SYSENTER_CS. Numbers are from Intel SDM volume 4.
pub const SYSENTER_CS: u32 = 0x174;
/// IA32_SYSENTER_ESP.
pub const SYSENTER_ESP: u32 = 0x175;
/// IA32_SYSENTER_EIP.
pub const SYSENTER_EIP: u32 = 0x176;
/// IA32_MISC_ENABLE.
pub const MISC_ENABLE: u32 = 0x1a0;
/// IA32_MTRR_DEF_TYPE.
pub const MTRR_DEF_TYPE: u32 = 0x2ff;
/// IA32_STAR.
pub const STAR: u32 = 0xc000_0081;
/// IA32_LSTAR.
pub const LSTAR: u32 = 0xc000_0082;
/// IA32_CSTAR.
pub const CSTAR: u32 = 0xc000_0083;
/// IA32_FMASK.
pub const SYSCALL_MASK: u32 = 0xc000_0084;
/// IA32_KERNEL_GS_BASE.
pub const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// MISC_ENABLE bit 0: fast string operations. The kernel's memcpy relies on them for speed.
const MISC_ENABLE_FAST_STRING: u64 = 1;
/// MTRR_DEF_TYPE bit 11: MTRRs enabled.
const MTRR_ENABLE: u64 = 1 << 11;
/// MTRR_DEF_TYPE bits 7:0: write-back for memory that no variable MTRR covers. Otherwise kernels map RAM
/// uncached.
const MTRR_WRITE_BACK: u64 = 6;

/// MSRs of a vCPU's state that some or all KVMs omit from KVM_GET_MSR_INDEX_LIST: machine checks, memory
/// types, shadow stacks and AMX, which are listed depending on version and host, and KVM's own for
/// asynchronous page faults.
pub fn beyond_list() -> impl Iterator<Item = u32> {
    let ranges = [
        // IA32_MCG_STATUS and IA32_MCG_CTL; four registers for each of 32 banks (IA32_MC0_CTL and so on).
        0x17a..=0x17b,
        0x400..=0x47f,
        // IA32_MTRR_PHYSBASE0 to PHYSMASK7; fixed-range MTRRs; IA32_PAT; default type.
        0x200..=0x20f,
        0x250..=0x250,
        0x258..=0x259,
        0x268..=0x26f,
        0x277..=0x277,
        MTRR_DEF_TYPE..=MTRR_DEF_TYPE,
        // IA32_TSX_CTRL; IA32_XFD and IA32_XFD_ERR.
        0x122..=0x122,
        0x1c4..=0x1c5,
        // IA32_U_CET; IA32_S_CET; IA32_PL0_SSP to PL3_SSP, and IA32_INTERRUPT_SSP_TABLE_ADDR; IA32_XSS.
        0x6a0..=0x6a0,
        0x6a2..=0x6a2,
        0x6a4..=0x6a8,
        0xda0..=0xda0,
        // From MSR_KVM_WALL_CLOCK_NEW on (Linux, arch/x86/include/uapi/asm/kvm_para.h).
        0x4b56_4d00..=0x4b56_4d08,
    ];
    ranges.into_iter().flatten()
}

/// Initial MSRs of each vCPU. Set them after CPUID: since Linux 6.13 KVM checks them against it.
pub fn boot() -> Vec<kvm_msr_entry> {
    let set = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    vec![
        set(SYSENTER_CS, 0),
        set(SYSENTER_ESP, 0),
        set(SYSENTER_EIP, 0),
        set(STAR, 0),
        set(CSTAR, 0),
        set(KERNEL_GS_BASE, 0),
        set(SYSCALL_MASK, 0),
        set(LSTAR, 0),
        set(MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        set(MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_WRITE_BACK),
    ]
}
