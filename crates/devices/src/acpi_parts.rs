//! The devices' contributions to the ACPI tables.

use vmm_acpi::{Fragment, Override, Reset, Rtc};

/// The devices' contributions to the ACPI tables, which each device adds to in turn. Where a machine has only one, as with
/// [`reset`](Self::reset), the last device's value counts.
#[derive(Clone, Debug, Default)]
pub struct AcpiParts {
    /// Objects in `\_SB`, most of them from [`vmm_acpi::io_device`].
    pub devices: Vec<Fragment>,
    /// Interrupts whose GSI, polarity or trigger mode differs from the ISA defaults (ACPI 6.5 §5.2.12.5).
    pub overrides: Vec<Override>,
    /// The fixed hardware. Required: a machine with ACPI can't be planned without it.
    pub power: Option<FixedHardware>,
    /// The reset register and the value to write to it. Required, like [`power`](Self::power).
    pub reset: Option<Reset>,
    /// The real-time clock, if the machine has one.
    pub rtc: Option<Rtc>,
}

/// The fixed hardware's registers and interrupt (ACPI 6.5 §4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedHardware {
    /// First of the four ports of the PM1a event block.
    pub pm1_event_port: u16,
    /// First of the two ports of the PM1a control block.
    pub pm1_control_port: u16,
    /// The system control interrupt (SCI), an ISA interrupt number.
    pub sci: u8,
    /// SLP_TYP of the soft-off state S5, 0 to 7.
    pub s5_sleep_type: u8,
}
