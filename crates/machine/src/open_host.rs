//! What every machine of a run needs of the host.

use vmm_kvm::Kvm;

use crate::Error;
use crate::platform::HostCpu;

/// Opened and read once: a confined process can open and read nothing.
#[derive(Debug)]
pub(crate) struct OpenHost {
    pub(crate) kvm: Kvm,
    pub(crate) cpu: HostCpu,
}

impl OpenHost {
    /// # Errors
    /// The host lacks KVM, or this user may not use it.
    pub(crate) fn open() -> Result<Self, Error> {
        Ok(Self { kvm: Kvm::open()?, cpu: HostCpu::read() })
    }
}
