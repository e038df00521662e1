//! What the devices of a machine say in its ACPI tables.

use vmm_acpi::{Fragment, Override, Reset, Rtc};

/// Collected from device after device, for the description that tables are rendered from. Of what a machine has once, the device
/// that comes last has its way.
#[derive(Clone, Debug, Default)]
pub struct AcpiParts {
    /// Objects in `\_SB`: [`vmm_acpi::io_device`] makes most of them.
    pub devices: Vec<Fragment>,
    /// Interrupts that don't arrive as those of ISA do.
    pub overrides: Vec<Override>,
    /// The fixed hardware, without which there are no tables.
    pub power: Option<FixedHardware>,
    /// A write that resets the machine, without which there are no tables either.
    pub reset: Option<Reset>,
    /// The real-time clock.
    pub rtc: Option<Rtc>,
}

/// Power management's registers and its interrupt (ACPI 6.5 §4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedHardware {
    /// First of the four ports of the PM1a event block.
    pub pm1_event_port: u16,
    /// First of the two ports of the PM1a control block.
    pub pm1_control_port: u16,
    /// The system control interrupt, an ISA interrupt.
    pub sci: u8,
    /// SLP_TYP of the soft-off state S5, 0 to 7.
    pub s5_sleep_type: u8,
}
