//! Why tables can't be rendered.

use std::ops::Range;

/// What is wrong with a description, a fragment or the place for the tables.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The area doesn't lie where a kernel searches the RSDP, or starts off a boundary of 16 bytes.
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
        /// The area given.
        area: Range<u64>,
        /// What all tables need with their alignment, in bytes.
        needed_len: u64,
        /// Length of the DSDT, which has some 40 bytes per processor and 60 per device.
        dsdt_len: usize,
        /// Length of the MADT, which has 8 or 16 bytes per processor.
        madt_len: usize,
        /// How many processors are described.
        cpus: usize,
        /// How many devices are described.
        devices: usize,
    },
    /// More processors than there are names for.
    #[error("{count} processors: ACPI tables name at most {max}")]
    TooManyCpus {
        /// How many are described.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// The numbers of a processor fit neither kind of MADT entry.
    #[error(
        "processor with uid {uid} and APIC id {apic_id}: an APIC id below 255 needs a uid below 255, \
         and 0xffffffff means all processors"
    )]
    CpuNumbers {
        /// The processor's uid.
        uid: u32,
        /// Its APIC id.
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
    /// An interrupt that isn't an ISA interrupt can't be overridden.
    #[error("override of interrupt {irq}: ISA interrupts are 0 to 15")]
    NotIsa {
        /// The interrupt given.
        irq: u8,
    },
    /// An interrupt is overridden twice.
    #[error("two overrides of interrupt {irq}")]
    DuplicateOverride {
        /// The interrupt given twice.
        irq: u8,
    },
    /// The sleep type doesn't fit the three bits of the PM1 control register.
    #[error("sleep type {value} of state S5: must be 0 to 7")]
    SleepType {
        /// The value given.
        value: u8,
    },
    /// A name that no ACPI object of a device can have.
    #[error("device name {name:?}: must be 1 to 4 of A-Z, 0-9 and _, and start with a letter")]
    Name {
        /// The name given.
        name: String,
    },
    /// Two objects in `\_SB` have the same name.
    #[error("two devices are called {name:?}")]
    DuplicateName {
        /// The name they share, filled up with underscores.
        name: String,
    },
    /// A hardware id of neither form.
    #[error("device {name}: hardware id {hid:?} is neither like \"PNP0501\" nor like \"LNRO0005\"")]
    HardwareId {
        /// The device's name.
        name: String,
        /// The id given.
        hid: String,
    },
    /// A range of ports that no I/O descriptor holds.
    #[error("device {name}: ports {:#x}..{:#x} must be 1 to 255", .ports.start, .ports.end)]
    Ports {
        /// The device's name.
        name: String,
        /// The ports given.
        ports: Range<u16>,
    },
    /// A range of registers that is empty or not below 4 GiB.
    #[error(
        "device {name}: registers {:#x}..{:#x} must be at least 1 byte, below 4 GiB",
        .registers.start, .registers.end
    )]
    Registers {
        /// The device's name.
        name: String,
        /// The registers given.
        registers: Range<u64>,
    },
}
