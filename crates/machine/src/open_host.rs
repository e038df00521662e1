//! What every machine of a run needs of the host.

use vmm_kvm::Kvm;
use vmm_memory::Pagemap;
use vmm_snapshot::SavedHost;

use crate::Error;
use crate::doctor::has_hardware_virtualization;
use crate::platform::{self, HostCpu};

/// Opened and read once: a confined process can open and read nothing.
#[derive(Debug)]
pub(crate) struct OpenHost {
    pub(crate) kvm: Kvm,
    pub(crate) cpu: HostCpu,
    /// To save memory without touching all of it. `None` if /proc isn't mounted.
    pub(crate) pagemap: Option<Pagemap>,
    /// The model-specific registers of a vCPU's state, by their numbers.
    pub(crate) registers: Vec<u32>,
    /// The host as a snapshot describes it, without the frequency of the TSC.
    pub(crate) described: SavedHost,
}

impl OpenHost {
    /// # Errors
    /// The host lacks KVM, or this user may not use it.
    pub(crate) fn open() -> Result<Self, Error> {
        let kvm = Kvm::open()?;
        // For the explanation of a crash.
        has_hardware_virtualization();
        let (registers, described) = (kvm.msr_indices()?, platform::describe_host(&kvm)?);
        Ok(Self { kvm, cpu: HostCpu::read(), pagemap: Pagemap::open().ok(), registers, described })
    }
}
