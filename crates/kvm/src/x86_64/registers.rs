//! A vCPU's registers.

use kvm_bindings::{CpuId, kvm_cpuid_entry2, kvm_regs, kvm_sregs};

use crate::error::Named;
use crate::{Error, KvmVcpu};

impl KvmVcpu {
    /// The general registers.
    ///
    /// # Errors
    /// The ioctl failed. So for all of these.
    pub fn regs(&self) -> Result<kvm_regs, Error> {
        self.fd.get_regs().named("KVM_GET_REGS")
    }

    /// Sets the general registers.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn set_regs(&self, regs: &kvm_regs) -> Result<(), Error> {
        self.fd.set_regs(regs).named("KVM_SET_REGS")
    }

    /// Segments, descriptor tables, control registers, APIC base.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn sregs(&self) -> Result<kvm_sregs, Error> {
        self.fd.get_sregs().named("KVM_GET_SREGS")
    }

    /// Sets segments, descriptor tables, control registers, APIC base. Start from [`sregs`](Self::sregs).
    ///
    /// # Errors
    /// The ioctl failed, or the state is one that no processor can be in.
    pub fn set_sregs(&self, sregs: &kvm_sregs) -> Result<(), Error> {
        self.fd.set_sregs(sregs).named("KVM_SET_SREGS")
    }

    /// Sets what the processor says of itself. Before MSRs, and before the vCPU first runs.
    ///
    /// # Errors
    /// More entries than KVM takes (256), or values that it refuses.
    pub fn set_cpuid(&self, entries: &[kvm_cpuid_entry2]) -> Result<(), Error> {
        let too_many = |_| Error::Ioctl { name: "KVM_SET_CPUID2", source: out_of_room() };
        let cpuid = CpuId::from_entries(entries).map_err(too_many)?;
        self.fd.set_cpuid2(&cpuid).named("KVM_SET_CPUID2")
    }
}

/// What KVM itself says to a list that is too long.
fn out_of_room() -> std::io::Error {
    std::io::Error::from_raw_os_error(libc::E2BIG)
}
