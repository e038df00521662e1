//! The system descriptor, `/dev/kvm`.

use std::io;

use kvm_bindings::{
    KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_IOEVENTFD, KVM_CAP_IRQFD, KVM_CAP_USER_MEMORY, KVM_MAX_CPUID_ENTRIES,
    kvm_cpuid_entry2,
};

use crate::capability::{Capability, capability};
use crate::error::Named;
use crate::vm::Vm;
use crate::{Error, x86_64};

/// Capabilities that every VM of this workspace requires, on any architecture.
const REQUIRED: [Capability; 4] = [
    capability!(KVM_CAP_USER_MEMORY),
    capability!(KVM_CAP_IRQFD),
    capability!(KVM_CAP_IOEVENTFD),
    capability!(KVM_CAP_IMMEDIATE_EXIT),
];

/// The host's KVM.
#[derive(Debug)]
pub struct Kvm {
    pub(crate) fd: kvm_ioctls::Kvm,
}

impl Kvm {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// `/dev/kvm` is missing, not accessible, or has an unsupported API version.
    pub fn open() -> Result<Self, Error> {
        let fd = kvm_ioctls::Kvm::new().map_err(|e| match io::Error::from(e) {
            e if e.kind() == io::ErrorKind::NotFound => Error::NoDevice,
            // ENODEV and ENXIO: the node exists, but its module isn't loaded.
            e if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => Error::NoDevice,
            e if e.kind() == io::ErrorKind::PermissionDenied => Error::NoPermission,
            source => Error::Ioctl { name: "open /dev/kvm", source },
        })?;
        match fd.get_api_version() {
            12 => Ok(Self { fd }),
            other => Err(Error::ApiVersion(other)),
        }
    }

    /// The capabilities that VMs require and this host lacks.
    pub fn missing_capabilities(&self) -> Vec<Capability> {
        let required = REQUIRED.iter().chain(x86_64::REQUIRED.iter());
        required.filter(|c| self.capability(c.number) <= 0).copied().collect()
    }

    /// The value of a capability, 0 if the host doesn't know it.
    pub fn capability(&self, number: u32) -> i32 {
        self.fd.check_extension_raw(number.into())
    }

    /// Maximum number of vCPUs of a VM.
    pub fn max_vcpus(&self) -> usize {
        self.fd.get_max_vcpus()
    }

    /// Exclusive upper bound of vCPU ids. A vCPU's id is its APIC id.
    pub fn max_vcpu_id(&self) -> usize {
        self.fd.get_max_vcpu_id()
    }

    /// The CPUID features that KVM can offer a guest on this host (KVM_GET_SUPPORTED_CPUID).
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Error> {
        let cpuid = self.fd.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).named("KVM_GET_SUPPORTED_CPUID")?;
        Ok(cpuid.as_slice().to_vec())
    }

    /// Creates an empty VM.
    ///
    /// # Errors
    /// A required capability is missing, or the host can't create another VM.
    pub fn create_vm(&self) -> Result<Vm, Error> {
        if let Some(missing) = self.missing_capabilities().first() {
            return Err(Error::MissingCapability(missing.name));
        }
        uninterrupted(|| self.fd.create_vm()).named("KVM_CREATE_VM").map(Vm::new)
    }
}

/// Repeats `create` while a signal interrupts it, in which case nothing was created.
fn uninterrupted<T>(
    mut create: impl FnMut() -> Result<T, kvm_ioctls::Error>,
) -> Result<T, kvm_ioctls::Error> {
    loop {
        match create() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `uninterrupted` on the kernel's `answers`, given last first; also returns how many are left.
    fn answered(mut answers: Vec<Result<u32, i32>>) -> (Result<u32, i32>, usize) {
        let create = || answers.pop().expect("no call too many").map_err(kvm_ioctls::Error::new);
        let result = uninterrupted(create).map_err(|error| error.errno());
        (result, answers.len())
    }

    #[test]
    fn creation_that_a_signal_interrupts_is_tried_again() {
        assert_eq!(answered(vec![Ok(7), Err(libc::EINTR), Err(libc::EINTR)]), (Ok(7), 0));
    }

    #[test]
    fn creation_that_fails_is_not_tried_again() {
        assert_eq!(answered(vec![Ok(7), Err(libc::ENOMEM), Err(libc::EINTR)]), (Err(libc::ENOMEM), 1));
    }
}
