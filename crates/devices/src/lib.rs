//! Legacy PC devices: a UART and the i8042 reset line, both based on [vm-superio](vm_superio), the real-time clock, ACPI power
//! management and pvpanic; and debug ports for kernels without drivers.
//!
//! Each is a [`BusDevice`], and a [`LegacyKind`], which says beside its registers what a machine has to know of it:
//! its ports, its interrupt, its part of ACPI, its fields in a config and how it is made. [`KINDS`] is the table of them, from
//! which a machine is planned and built; a new device is a module and a line there. A device knows its registers, its interrupt line and its
//! buffers, and no host file: whoever owns the host's side moves bytes between the two with [`Uart::send`]
//! and [`Output::take`](vmm_bus::Output::take), when the eventfds say so.
//!
//! ```
//! use vmm_bus::{BusDevice, IrqLine, Outcome};
//! use vmm_devices::Uart;
//!
//! let irq = IrqLine::new()?;
//! let uart = Uart::new(irq.clone())?;
//! // The guest prints a byte, and the host takes it.
//! assert_eq!(uart.write(0, b"!"), Outcome::Done);
//! let mut bytes = [0; 16];
//! assert_eq!(uart.output().take(&mut bytes).len, 1);
//! // The guest enables the receive interrupt, and reads a byte that the host sends.
//! let _ = uart.write(1, &[1]);
//! assert_eq!(uart.send(b"x"), 1);
//! irq.event().read()?;
//! let mut byte = [0];
//! uart.read(0, &mut byte);
//! assert_eq!(&byte, b"x");
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

mod acpi_parts;
mod debug_console;
mod debug_exit;
mod host_side;
mod i8042;
mod kind;
mod output_state;
mod pm;
mod pseudo_serial;
mod pvpanic;
mod rtc;
mod saved;
#[cfg(test)]
mod testing;
mod uart;
mod wiring;

pub use acpi_parts::{AcpiParts, FixedHardware};
pub use debug_console::DebugConsole;
pub use debug_exit::DebugExit;
pub use host_side::{PowerButton, SerialLine};
pub use i8042::I8042;
pub use kind::{AtPort, LegacyEntry, LegacyKind, Place, PlannedDevice, Presence};
pub use output_state::OutputState;
pub use pm::{PowerManagement, PowerState};
pub use pseudo_serial::PseudoSerial;
pub use pvpanic::PvPanic;
pub use rtc::{Rtc, RtcState};
pub use saved::{DeviceState, SavedDevice, Stateful};
pub use uart::{Uart, UartState};
/// The types of [`LegacyKind::describe`]: a device's ACPI objects, and its errors.
pub use vmm_acpi;
/// The traits and types of a device's registers and interrupt.
pub use vmm_bus::{BusDevice, IrqLine, Outcome, SystemEvent};
/// The reading of config fields, and the types of their values.
pub use vmm_config;
pub use vmm_config::NoFields;
/// The format of a device's [state](Stateful).
pub use vmm_snapshot;
pub use wiring::{BuiltDevice, Wiring};
/// The crates that derive [`LegacyKind::Config`], in the versions used here: `#[serde(crate = "vmm_devices::serde")]`,
/// `#[schemars(crate = "vmm_devices::schemars")]`.
pub use {schemars, serde};

/// All kinds of legacy devices, in the order of their ACPI descriptions.
pub const KINDS: &[LegacyEntry] = &[
    LegacyEntry::of::<Uart>(),
    LegacyEntry::of::<I8042>(),
    LegacyEntry::of::<Rtc>(),
    LegacyEntry::of::<PowerManagement>(),
    LegacyEntry::of::<PvPanic>(),
    LegacyEntry::of::<DebugConsole>(),
    LegacyEntry::of::<DebugExit>(),
    LegacyEntry::of::<PseudoSerial>(),
];

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
