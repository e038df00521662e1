//! Checks the I/O ports of legacy devices.

use std::ops::Range;

use thiserror::Error;
use vmm_pci::{CAM_LEN, CAM_PORT};

/// The address space of legacy devices' registers, in the plan's text.
pub(crate) const LEGACY_SPACE: &str = "ports";

/// The legacy registers of a PCI bus: configuration mechanism #1.
pub(crate) const PCI_REGISTERS: (&str, Range<u64>) = ("PCI configuration", CAM_PORT..CAM_PORT + CAM_LEN);

/// One past the last port.
const END: u64 = 0x1_0000;

/// Ports that KVM emulates on a machine with interrupt controllers; an access there never exits to the monitor.
const EMULATED: [(&str, Range<u64>); 4] = [
    ("interrupt controller", 0x20..0x22),
    ("timer", 0x40..0x44),
    ("interrupt controller", 0xa0..0xa2),
    ("interrupt controllers' trigger modes", 0x4d0..0x4d2),
];

/// Why a legacy device can't have its ports. Messages are preceded by the config field's name, [`Self::FIELD`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegisterConflict {
    /// Another device has some of the ports.
    #[error("{first:#x} belongs to the {by} (ports {:#x} to {:#x}); choose another", ports.start, ports.end - 1)]
    Taken {
        /// The first requested port.
        first: u64,
        /// The other device's name.
        by: String,
        /// The other device's ports.
        ports: Range<u64>,
    },
    /// A device that KVM emulates has some of the ports.
    #[error(
        "{first:#x} belongs to the {by} (ports {:#x} to {:#x}); choose another, or set \"irqchip\" to false",
        ports.start, ports.end - 1
    )]
    Emulated {
        /// The first requested port.
        first: u64,
        /// The name of KVM's device.
        by: &'static str,
        /// The other device's ports.
        ports: Range<u64>,
    },
    /// The ports exceed 0xffff.
    #[error("{count} ports from {first:#x} on run past the last one, 0xffff; choose a lower one")]
    PastEnd {
        /// The first requested port.
        first: u64,
        /// The device's number of ports.
        count: u64,
    },
}

impl RegisterConflict {
    /// The config's field for a legacy device's first register.
    pub const FIELD: &'static str = "port";
}

/// Checks the ports of a device against KVM's and those of `others`, given by name and ports.
pub(crate) fn check_registers<'a>(
    ports: &Range<u64>,
    irqchip: bool,
    mut others: impl Iterator<Item = (&'a str, &'a Range<u64>)>,
) -> Result<(), RegisterConflict> {
    let first = ports.start;
    if ports.end > END {
        return Err(RegisterConflict::PastEnd { first, count: ports.end - first });
    }
    let overlaps = |other: &Range<u64>| other.start < ports.end && ports.start < other.end;
    if let Some((by, ports)) = EMULATED.iter().find(|(_, kvm)| irqchip && overlaps(kvm)) {
        return Err(RegisterConflict::Emulated { first, by, ports: ports.clone() });
    }
    match others.find(|(_, other)| overlaps(other)) {
        Some((by, ports)) => Err(RegisterConflict::Taken { first, by: by.to_owned(), ports: ports.clone() }),
        None => Ok(()),
    }
}
