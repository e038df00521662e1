//! The input of rendering: plain numbers that describe the machine.

use crate::Fragment;

/// A machine as ACPI describes it to an operating system.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// The processors, boot processor first. Uids and APIC ids are unique.
    pub cpus: &'a [Cpu],
    /// Guest-physical address of the local APICs' registers.
    pub local_apic: u32,
    /// Whether NMIs are delivered to LINT1 of every processor, as on a PC.
    pub nmi_on_lint1: bool,
    /// The I/O APIC of the devices' interrupts.
    pub ioapic: IoApic,
    /// ISA interrupts whose GSI, polarity or trigger mode differs from the ISA default; at most one entry per
    /// interrupt.
    pub overrides: &'a [Override],
    /// Power management registers, sleep states and interrupt.
    pub power: Power,
    /// Legacy PC hardware that is present.
    pub legacy: Legacy,
    /// The devices' AML, in the order in which drivers are to find them.
    pub devices: &'a [Fragment],
    /// Guest-physical address of the memory-mapped configuration spaces (ECAM) of PCI bus 0, of 1 MiB, if there is a PCI bus. The
    /// devices must include the host bridge ([`pci_root`](crate::pci_root)) and reserve them
    /// ([`motherboard`](crate::motherboard)).
    pub ecam: Option<u64>,
}

/// A processor.
///
/// An APIC id below 255 requires a uid below 255: the MADT entry for it has 8 bits for each, and kernels
/// ignore the longer entry for such a processor (Linux, "x86/acpi: Ignore invalid x2APIC entries").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Processor uid, by which tables refer to it.
    pub uid: u32,
    /// Local APIC id. Ids from 255 on are only reachable in x2APIC mode.
    pub apic_id: u32,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// I/O APIC id.
    pub id: u8,
    /// Guest-physical address of its registers.
    pub address: u32,
    /// Global system interrupt of its first pin.
    pub gsi_base: u32,
}

/// An ISA interrupt that isn't delivered to the global system interrupt of the same number on a rising edge
/// (ACPI 6.5 §5.2.12.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// ISA interrupt, 0 to 15.
    pub irq: u8,
    /// Global system interrupt it is delivered to.
    pub gsi: u32,
    /// Active level.
    pub polarity: Polarity,
    /// Trigger mode.
    pub trigger: Trigger,
}

/// Active level of an interrupt line. Values are those of the MPS INTI flags (ACPI 6.5 table 5.26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Polarity {
    /// Conforms to the bus: active high on ISA.
    Bus = 0b00,
    /// Active high.
    ActiveHigh = 0b01,
    /// Active low.
    ActiveLow = 0b11,
}

/// Trigger mode of an interrupt. Values are those of the MPS INTI flags (ACPI 6.5 table 5.26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Trigger {
    /// Conforms to the bus: edge-triggered on ISA.
    Bus = 0b00 << 2,
    /// Triggered by the edge to the active level.
    Edge = 0b01 << 2,
    /// Triggered by the active level.
    Level = 0b11 << 2,
}

/// Fixed hardware for power management (ACPI 6.5 §4.8). The machine is always in ACPI mode: there is no SMI
/// command port, and SCI_EN in the PM1 control register must read as 1.
///
/// There is a power button, with its status and enable bits in the PM1 event registers, and no sleep button.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    /// First of the four ports of PM1a events: two bytes of status, two of enable.
    pub pm1_event_port: u16,
    /// First of the two ports of PM1a control.
    pub pm1_control_port: u16,
    /// First of the four ports of the PM timer: 24 bits, 3.579545 MHz.
    pub pm_timer_port: Option<u16>,
    /// ISA interrupt of power events (SCI). An [`Override`] sets its polarity and trigger; without one
    /// kernels assume active low and level-triggered.
    pub sci: u8,
    /// The reset register.
    pub reset: Reset,
    /// SLP_TYP of the soft-off state S5, 0 to 7.
    pub s5_sleep_type: u8,
}

/// The reset register: a write of `value` to `port` resets the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// I/O port of the register.
    pub port: u16,
    /// Value that resets the machine.
    pub value: u8,
}

/// Legacy PC hardware that kernels must not probe for unless it is present (ACPI 6.5 §5.2.9.3). There is
/// never a VGA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Legacy {
    /// Whether there are user-visible devices on ISA, such as serial ports.
    pub isa_devices: bool,
    /// Whether there is an i8042 at ports 0x60 and 0x64. Probing for an absent one delays the kernel's boot.
    pub i8042: bool,
    /// The real-time clock at ports 0x70 and 0x71.
    pub rtc: Option<Rtc>,
}

/// A real-time clock with CMOS memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rtc {
    /// CMOS index of the century; 0 if there is none.
    pub century: u8,
}
