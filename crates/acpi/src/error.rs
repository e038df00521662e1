//! Errors of the crate.

use std::ops::Range;

/// What is wrong with a description, a fragment or the area for the tables.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The area is outside the range that kernels search for the RSDP, or its start isn't a multiple of 16.
    #[error(
        "area {:#x}..{:#x} for ACPI tables: must start at a multiple of 16 and lie in 0xe0000..0x100000",
        .area.start, .area.end
    )]
    Area {
        /// The area given.
        area: Range<u64>,
    },
    /// The area is too small for the tables.
    #[error(
        "area {:#x}..{:#x} has {} bytes, the ACPI tables of {cpus} processors and {devices} devices need \
         {needed_len} (DSDT {dsdt_len}, MADT {madt_len})",
        .area.start, .area.end, .area.end - .area.start
    )]
    NoRoom {
        /// Length of all tables with their alignment, in bytes.
        area: Range<u64>,
        /// What all tables need with their alignment, in bytes.
        needed_len: u64,
        /// Length of the DSDT in bytes: about 40 per processor and 60 per device.
        dsdt_len: usize,
        /// Length of the MADT in bytes: 8 or 16 per processor.
        madt_len: usize,
        /// Number of processors.
        cpus: usize,
        /// Number of devices.
        devices: usize,
    },
    /// There are more processors than names for them.
    #[error("{count} processors: ACPI tables name at most {max}")]
    TooManyCpus {
        /// Number of processors described.
        count: usize,
        /// Maximum number of processors.
        max: usize,
    },
    /// The processor's ids fit neither kind of MADT entry.
    #[error(
        "processor with uid {uid} and APIC id {apic_id}: an APIC id below 255 needs a uid below 255, \
         and 0xffffffff means all processors"
    )]
    CpuNumbers {
        /// The processor's uid.
        uid: u32,
        /// The processor's APIC id.
        apic_id: u32,
    },
    /// Two processors have the same uid or the same APIC id.
    #[error("two processors have the {what} {number}")]
    DuplicateCpu {
        /// "uid" or "APIC id".
        what: &'static str,
        /// The number they share.
        number: u32,
    },
    /// The override isn't for an ISA interrupt.
    #[error("override of interrupt {irq}: ISA interrupts are 0 to 15")]
    NotIsa {
        /// The interrupt.
        irq: u8,
    },
    /// An interrupt is overridden twice.
    #[error("two overrides of interrupt {irq}")]
    DuplicateOverride {
        /// The interrupt.
        irq: u8,
    },
    /// The sleep type doesn't fit the three bits of the PM1 control register.
    #[error("sleep type {value} of state S5: must be 0 to 7")]
    SleepType {
        /// The sleep type.
        value: u8,
    },
    /// The name isn't valid for an ACPI device object.
    #[error("device name {name:?}: must be 1 to 4 of A-Z, 0-9 and _, and start with a letter")]
    Name {
        /// The name.
        name: String,
    },
    /// Two objects in `\_SB` have the same name.
    #[error("two devices are called {name:?}")]
    DuplicateName {
        /// The name, padded with underscores.
        name: String,
    },
    /// The hardware id has neither of the two valid forms.
    #[error("device {name}: hardware id {hid:?} is neither like \"PNP0501\" nor like \"LNRO0005\"")]
    HardwareId {
        /// The device's name.
        name: String,
        /// The hardware id.
        hid: String,
    },
    /// The port range is empty, too long for an I/O descriptor, or runs past the last port.
    #[error("device {name}: ports {:#x}..{:#x} must be 1 to 255, none above 0xffff", .ports.start, .ports.end)]
    Ports {
        /// The device's name.
        name: String,
        /// The ports.
        ports: Range<u64>,
    },
    /// The register range is empty or not below 4 GiB.
    #[error(
        "device {name}: registers {:#x}..{:#x} must be at least 1 byte, below 4 GiB",
        .registers.start, .registers.end
    )]
    Registers {
        /// The device's name.
        name: String,
        /// The registers.
        registers: Range<u64>,
    },
}
