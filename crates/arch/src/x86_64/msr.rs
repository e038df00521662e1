//! Model-specific registers that firmware would have set before a kernel starts.

use kvm_bindings::kvm_msr_entry;

/// IA32_SYSENTER_CS, Intel SDM volume 4, as the rest.
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

/// MISC_ENABLE bit 0: fast string operations, which memcpy in the kernel relies on for speed.
const MISC_ENABLE_FAST_STRING: u64 = 1;
/// MTRR_DEF_TYPE bit 11: MTRRs are enabled.
const MTRR_ENABLE: u64 = 1 << 11;
/// MTRR_DEF_TYPE bits 7:0: write-back for all memory that no variable MTRR names. Without it a kernel maps
/// RAM uncached.
const MTRR_WRITE_BACK: u64 = 6;

/// The MSRs of each vCPU at boot. Set them after CPUID: since Linux 6.13 KVM checks one against the other.
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
