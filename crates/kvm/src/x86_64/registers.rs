//! A vCPU's registers and CPUID.

use std::sync::PoisonError;

use kvm_bindings::{CpuId, kvm_cpuid_entry2, kvm_regs, kvm_sregs};

use crate::error::Named;
use crate::{Error, KvmVcpu};

impl KvmVcpu {
    /// The general-purpose registers.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn regs(&self) -> Result<kvm_regs, Error> {
        self.fd.get_regs().named("KVM_GET_REGS")
    }

    /// Sets the general-purpose registers.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn set_regs(&self, regs: &kvm_regs) -> Result<(), Error> {
        self.fd.set_regs(regs).named("KVM_SET_REGS")
    }

    /// Segments, descriptor tables, control registers and APIC base.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn sregs(&self) -> Result<kvm_sregs, Error> {
        self.fd.get_sregs().named("KVM_GET_SREGS")
    }

    /// Sets segments, descriptor tables, control registers and APIC base. Start from [`sregs`](Self::sregs).
    ///
    /// # Errors
    /// The ioctl failed, or no processor can be in that state.
    pub fn set_sregs(&self, sregs: &kvm_sregs) -> Result<(), Error> {
        self.fd.set_sregs(sregs).named("KVM_SET_SREGS")
    }

    /// Sets the guest's CPUID. Call it before setting MSRs and before the vCPU first runs.
    ///
    /// # Errors
    /// There are more entries than KVM accepts (256), or it refuses their values.
    pub fn set_cpuid(&self, entries: &[kvm_cpuid_entry2]) -> Result<(), Error> {
        let too_many = |_| Error::Ioctl { name: "KVM_SET_CPUID2", source: out_of_room() };
        let cpuid = CpuId::from_entries(entries).map_err(too_many)?;
        self.fd.set_cpuid2(&cpuid).named("KVM_SET_CPUID2")?;
        *self.given_cpuid.lock().unwrap_or_else(PoisonError::into_inner) = Some(entries.to_vec());
        Ok(())
    }
}

/// KVM's own error for a list that is too long.
fn out_of_room() -> std::io::Error {
    std::io::Error::from_raw_os_error(libc::E2BIG)
}
