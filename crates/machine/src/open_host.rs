//! What every machine of a run needs of the host.

use vmm_kvm::Kvm;
use vmm_memory::Pagemap;

use crate::Error;
use crate::doctor::has_hardware_virtualization;
use crate::platform::HostCpu;

/// Opened and read once: a confined process can open and read nothing.
#[derive(Debug)]
pub(crate) struct OpenHost {
    pub(crate) kvm: Kvm,
    pub(crate) cpu: HostCpu,
    /// To save memory without touching all of it. `None` if /proc isn't mounted.
    pub(crate) pagemap: Option<Pagemap>,
}

impl OpenHost {
    /// # Errors
    /// The host lacks KVM, or this user may not use it.
    pub(crate) fn open() -> Result<Self, Error> {
        let kvm = Kvm::open()?;
        // For the explanation of a crash.
        has_hardware_virtualization();
        Ok(Self { kvm, cpu: HostCpu::read(), pagemap: Pagemap::open().ok() })
    }
}
