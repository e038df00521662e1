//! Registers that the rest of the crate asks for.

use vmm_kvm::KvmVcpu;

/// The instruction pointer; `None` where it can't be read.
pub(crate) fn instruction_pointer(vcpu: &KvmVcpu) -> Option<u64> {
    vcpu.regs().ok().map(|regs| regs.rip)
}
