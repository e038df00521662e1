//! Errors about the host's processors and their support in KVM.

use vmm_arch::cpuid::{Missing, MissingFeatures};
use vmm_arch::topology::Topology;

/// A property of the guest's processors that the host doesn't support.
#[derive(Debug, thiserror::Error)]
pub enum HostCpuError {
    /// The topology needs higher APIC ids than the host's KVM supports.
    #[error(
        "cpus: {topology} need APIC ids up to {last}, but this host's KVM supports them up to {max}; use fewer processors, or \
         for cores and threads by powers of two"
    )]
    ApicIds {
        /// The config's topology.
        topology: Topology,
        /// The topology's highest id.
        last: u32,
        /// The highest id that KVM supports.
        max: u32,
    },
    /// The host lacks CPU features that the config requires.
    #[error(
        "cpus.features: {0}; choose a lower baseline, remove what is missing (\"-{first}\"), or use another host",
        first = .0.names.first().copied().unwrap_or_default()
    )]
    Features(MissingFeatures),
    /// The host lacks what the guest of a snapshot was told that its processor has.
    #[error("this host's KVM lacks {}, which the guest of the snapshot may use{}", shown(.0), remedy(.0))]
    Restore(Vec<Missing>),
    /// The host's KVM doesn't support the processor mode that the guest starts in.
    #[error(
        "this host's KVM doesn't support the mode that the guest starts in: {register} was set to {requested:#x} but is \
         {actual:#x} (a software KVM has paging only in long mode); use another host or another mode"
    )]
    Mode {
        /// The register that differs.
        register: &'static str,
        /// The value that was set.
        requested: u64,
        /// The value that was read back.
        actual: u64,
    },
}

impl HostCpuError {
    /// The JSON path of the field in question, if there is one.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Features(_) => Some("cpus.features"),
            Self::ApicIds { .. } | Self::Restore(_) | Self::Mode { .. } => None,
        }
    }
}

fn shown(missing: &[Missing]) -> String {
    missing.iter().map(Missing::to_string).collect::<Vec<_>>().join(", ")
}

/// The `cpus.features` with which the snapshot could have been restored here.
fn remedy(missing: &[Missing]) -> String {
    let names = missing.iter().filter_map(|missing| match missing {
        Missing::Feature(name) => Some(format!("\"-{name}\"")),
        _ => None,
    });
    let names: Vec<_> = names.collect();
    match names[..] {
        [] => "; restore it on another host".to_owned(),
        _ => format!(
            "; restore it on another host, or take it from a machine with \"cpus\": {{\"features\": [\"host\", {}]}} or a baseline",
            names.join(", ")
        ),
    }
}
