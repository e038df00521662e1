//! What the host's processors, or its KVM, can't do for a guest.

use vmm_arch::cpuid::MissingFeatures;
use vmm_arch::topology::Topology;

/// What the guest is to have of a processor, and the host can't give.
#[derive(Debug, thiserror::Error)]
pub enum HostCpuError {
    /// The host's KVM has no APIC ids so high.
    #[error(
        "cpus: {topology} need APIC ids up to {last}, but this host's KVM has them up to {max}; ask for fewer processors, or \
         for cores and threads by powers of two"
    )]
    ApicIds {
        /// What the config asks for.
        topology: Topology,
        /// The highest id of it.
        last: u32,
        /// The highest that there is.
        max: u32,
    },
    /// The host hasn't got the CPU features that the guest is to have.
    #[error(
        "cpus.features: {0}; choose a lower baseline, remove what is missing (\"-{first}\"), or use another host",
        first = .0.names.first().copied().unwrap_or_default()
    )]
    Features(MissingFeatures),
    /// The host's KVM doesn't have the processor's mode that the guest starts in.
    #[error(
        "this host's KVM doesn't enter the mode that the guest starts in: it takes {register} {asked:#x} as {taken:#x} (a \
         software KVM has no paging but in long mode); use another host or another mode"
    )]
    Mode {
        /// Which register shows it.
        register: &'static str,
        /// What it was set to.
        asked: u64,
        /// What it is.
        taken: u64,
    },
}

impl HostCpuError {
    /// The JSON path of the field that it is about, if there is one.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Features(_) => Some("cpus.features"),
            Self::ApicIds { .. } | Self::Mode { .. } => None,
        }
    }
}
