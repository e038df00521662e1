//! Which I/O ports a legacy device may have.

use std::ops::Range;

use thiserror::Error;

/// What the addresses of legacy devices' registers are.
pub(crate) const LEGACY_SPACE: &str = "ports";

/// One past the last port.
const END: u64 = 0x1_0000;

/// Ports that KVM answers itself on a machine with interrupt controllers; an access there never leaves the guest.
const EMULATED: [(&str, Range<u64>); 4] = [
    ("interrupt controller", 0x20..0x22),
    ("timer", 0x40..0x44),
    ("interrupt controller", 0xa0..0xa2),
    ("interrupt controllers' trigger modes", 0x4d0..0x4d2),
];

/// Why a legacy device's registers can't be where it wants them. Messages follow on the config field's name, [`Self::FIELD`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegisterConflict {
    /// Some of its ports belong to another device.
    #[error("{first:#x} belongs to the {by} (ports {:#x} to {:#x}); choose another", ports.start, ports.end - 1)]
    Taken {
        /// The first port that was asked for.
        first: u64,
        /// The other device.
        by: String,
        /// Its ports.
        ports: Range<u64>,
    },
    /// Some of its ports belong to a device that KVM emulates.
    #[error(
        "{first:#x} belongs to the {by} (ports {:#x} to {:#x}); choose another, or set \"irqchip\" to false",
        ports.start, ports.end - 1
    )]
    Emulated {
        /// The first port that was asked for.
        first: u64,
        /// KVM's device.
        by: &'static str,
        /// Its ports.
        ports: Range<u64>,
    },
    /// Its ports run past the last one.
    #[error("{count} ports from {first:#x} on run past the last one, 0xffff; choose a lower one")]
    PastEnd {
        /// The first port that was asked for.
        first: u64,
        /// How many ports the device has.
        count: u64,
    },
}

impl RegisterConflict {
    /// The config's field for a legacy device's first register.
    pub const FIELD: &'static str = "port";
}

/// Checks whether a device may have these ports beside `others`, whose names come with their ports.
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
