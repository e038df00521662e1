//! Register access for the rest of the crate.

use vmm_kvm::KvmVcpu;

/// The instruction pointer, or `None` if it can't be read.
pub(crate) fn instruction_pointer(vcpu: &KvmVcpu) -> Option<u64> {
    vcpu.regs().ok().map(|regs| regs.rip)
}
