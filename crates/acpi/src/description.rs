//! What the tables are rendered from: plain numbers, no device.

use crate::Fragment;

/// A machine as an operating system has to know it.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// The processors, the one that boots first. Uids and APIC ids are distinct.
    pub cpus: &'a [Cpu],
    /// Guest-physical address of every processor's local APIC.
    pub local_apic: u32,
    /// Whether an NMI arrives at LINT1 of every processor, as on a PC.
    pub nmi_on_lint1: bool,
    /// The interrupt controller of the devices.
    pub ioapic: IoApic,
    /// ISA interrupts that arrive elsewhere or otherwise than ISA says, each once.
    pub overrides: &'a [Override],
    /// Power states, their registers and their interrupt.
    pub power: Power,
    /// What else of a PC is there.
    pub legacy: Legacy,
    /// The devices, as each describes itself, in the order in which drivers are to find them.
    pub devices: &'a [Fragment],
}

/// A processor.
///
/// An APIC id below 255 needs a uid below 255, because the MADT's entry for it has 8 bits for each; kernels
/// ignore the longer entry for such a processor (Linux, "x86/acpi: Ignore invalid x2APIC entries").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Number by which tables refer to it.
    pub uid: u32,
    /// Id of its local APIC. 255 and above are reachable in x2APIC mode only.
    pub apic_id: u32,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Its id.
    pub id: u8,
    /// Guest-physical address of its registers.
    pub address: u32,
    /// Global system interrupt of its first input.
    pub gsi_base: u32,
}

/// How an ISA interrupt arrives, where that isn't at the global system interrupt of the same number, on a
/// rising edge (ACPI 6.5 §5.2.12.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// The ISA interrupt, 0 to 15.
    pub irq: u8,
    /// Where it arrives, a global system interrupt.
    pub gsi: u32,
    /// Which level is active.
    pub polarity: Polarity,
    /// What triggers it.
    pub trigger: Trigger,
}

/// Which level of an interrupt line is active. The numbers are those of the MPS INTI flags (ACPI 6.5 table 5.26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Polarity {
    /// As the bus says: active high on ISA.
    Bus = 0b00,
    /// The high level.
    ActiveHigh = 0b01,
    /// The low level.
    ActiveLow = 0b11,
}

/// What triggers an interrupt. The numbers are those of the MPS INTI flags (ACPI 6.5 table 5.26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Trigger {
    /// As the bus says: an edge on ISA.
    Bus = 0b00 << 2,
    /// The change to the active level.
    Edge = 0b01 << 2,
    /// The active level.
    Level = 0b11 << 2,
}

/// The fixed hardware of power management (ACPI 6.5 §4.8). The machine is always in ACPI mode: there is no
/// SMI command port, and SCI_EN in the PM1 control register has to read as 1.
///
/// There is a power button, whose status and enable bits are in the PM1 event registers, and no sleep button.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    /// First of the four ports of PM1a: status, two bytes, and enable, two bytes.
    pub pm1_event_port: u16,
    /// First of the two ports of PM1a control.
    pub pm1_control_port: u16,
    /// First of the four ports of a timer of 24 bits at 3.579545 MHz.
    pub pm_timer_port: Option<u16>,
    /// The ISA interrupt of power events. An [`Override`] says how it arrives; without one kernels take it
    /// for active low, triggered by level.
    pub sci: u8,
    /// How the machine is reset.
    pub reset: Reset,
    /// SLP_TYP of the soft-off state S5, 0 to 7.
    pub s5_sleep_type: u8,
}

/// A write that resets the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The port.
    pub port: u16,
    /// The byte.
    pub value: u8,
}

/// What of a PC kernels must not look for where it is absent (ACPI 6.5 §5.2.9.3). There is never a VGA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Legacy {
    /// Whether a user would notice devices on ISA, such as serial ports.
    pub isa_devices: bool,
    /// Whether there is an i8042 at ports 0x60 and 0x64. Probing for one costs a kernel time at start-up.
    pub i8042: bool,
    /// The real-time clock at ports 0x70 and 0x71.
    pub rtc: Option<Rtc>,
}

/// A real-time clock with CMOS memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rtc {
    /// Where the CMOS memory has the century; 0 if it hasn't got it.
    pub century: u8,
}
