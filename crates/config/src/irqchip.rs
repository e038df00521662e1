//! Whether a machine has KVM's interrupt controllers, and why.

use std::fmt;

use crate::{device::Device, file::ConfigFile, overrides::Overrides};

/// Why a machine has interrupt controllers, so that a halted processor only waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqchipReason {
    /// `irqchip` is true.
    Field,
    /// `--irqchip` was given.
    Flag,
    /// The default for a Linux kernel, which requires them.
    Linux,
    /// The default with several processors, which are started through the local APIC.
    Processors,
    /// The default with virtio devices, which interrupt the guest.
    Virtio,
}

impl IrqchipReason {
    /// Why the machine has interrupt controllers; `None` if it has none.
    ///
    /// The flag takes precedence over the file. By default only a flat image with one processor and without
    /// virtio devices has none: it ends at its `hlt`, where it would wait forever with interrupt controllers.
    pub(crate) fn of(file: &ConfigFile, flags: &Overrides) -> Option<IrqchipReason> {
        let is_flat = file.boot.flat.is_some() || flags.flat.is_some();
        let count = flags.cpus.or(file.cpus.count).unwrap_or_default();
        let mut devices = file.devices.iter();
        match (flags.irqchip, file.irqchip) {
            (Some(asked), _) => asked.then_some(IrqchipReason::Flag),
            (None, Some(asked)) => asked.then_some(IrqchipReason::Field),
            (None, None) if !is_flat => Some(IrqchipReason::Linux),
            (None, None) if count.get() > 1 => Some(IrqchipReason::Processors),
            (None, None) => {
                devices.any(|device| matches!(device, Device::Virtio(_))).then_some(IrqchipReason::Virtio)
            }
        }
    }
}

/// A clause, and what to change.
impl fmt::Display for IrqchipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IrqchipReason::Field => "because \"irqchip\" is true; set it to false",
            IrqchipReason::Flag => "because of --irqchip; remove it",
            IrqchipReason::Linux => {
                "because a Linux kernel gets interrupt controllers; set \"irqchip\" to false"
            }
            IrqchipReason::Processors => {
                "because more than one processor needs interrupt controllers; ask for one"
            }
            IrqchipReason::Virtio => "because virtio devices need interrupt controllers; remove them",
        })
    }
}
