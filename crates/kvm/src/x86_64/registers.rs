//! A vCPU's registers.

use kvm_bindings::{
    CpuId, Msrs, kvm_cpuid_entry2, kvm_fpu, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_sregs,
};

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

    /// Sets the x87 and SSE state.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn set_fpu(&self, fpu: &kvm_fpu) -> Result<(), Error> {
        self.fd.set_fpu(fpu).named("KVM_SET_FPU")
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

    /// Sets model-specific registers.
    ///
    /// # Errors
    /// KVM refused one, which is named; those in front of it are set.
    pub fn set_msrs(&self, entries: &[kvm_msr_entry]) -> Result<(), Error> {
        let too_many = |_| Error::Ioctl { name: "KVM_SET_MSRS", source: out_of_room() };
        let msrs = Msrs::from_entries(entries).map_err(too_many)?;
        let done = self.fd.set_msrs(&msrs).named("KVM_SET_MSRS")?;
        match entries.get(done) {
            Some(refused) => Err(Error::Msr { index: refused.index }),
            None => Ok(()),
        }
    }

    /// The registers of the local APIC.
    ///
    /// # Errors
    /// The VM has no in-kernel interrupt controllers.
    pub fn lapic(&self) -> Result<kvm_lapic_state, Error> {
        self.fd.get_lapic().named("KVM_GET_LAPIC")
    }

    /// Sets the registers of the local APIC.
    ///
    /// # Errors
    /// The VM has no in-kernel interrupt controllers, or the state is invalid.
    pub fn set_lapic(&self, lapic: &kvm_lapic_state) -> Result<(), Error> {
        self.fd.set_lapic(lapic).named("KVM_SET_LAPIC")
    }
}

/// What KVM itself says to a list that is too long.
fn out_of_room() -> std::io::Error {
    std::io::Error::from_raw_os_error(libc::E2BIG)
}
