//! Renders ACPI tables from a plain description of the machine.
//!
//! - [`Description`] is what an operating system needs to know: processors, interrupt controllers, power
//!   management registers. It holds plain numbers and no device.
//! - [`Fragment`] is the AML of one device. [`io_device`] and [`mmio_device`] make the usual ones,
//!   [`pci_root`] and [`motherboard`] those of a PCI bus; [`Fragment::from_aml`] takes any other.
//! - [`render`] turns them into the RSDP, XSDT, FADT, FACS, MADT, DSDT and, with PCI, MCFG, each with its guest-physical
//!   address. The caller writes them to guest memory.
//!
//! The machine has ACPI's fixed hardware (it isn't "hardware-reduced"): a power button in the PM1 event
//! registers, soft off through the PM1 control register, and a reset register. It is always in ACPI mode:
//! there is no firmware to switch it. Tables follow ACPI 6.5. Equal descriptions render to equal bytes.
//!
//! ```
//! use vmm_acpi::{Cpu, Description, IoApic, Legacy, Power, Reset, io_device, mmio_device, render};
//!
//! let com1 = io_device("COM1", "PNP0501", 0, [0x3f8..0x400], Some(4))?;
//! let disk = mmio_device("VR00", "LNRO0005", 0, 0xd000_0000..0xd000_0200, 5)?;
//! let tables = render(
//!     &Description {
//!         cpus: &[Cpu { uid: 0, apic_id: 0 }, Cpu { uid: 1, apic_id: 1 }],
//!         local_apic: 0xfee0_0000,
//!         nmi_on_lint1: true,
//!         ioapic: IoApic { id: 0, address: 0xfec0_0000, gsi_base: 0 },
//!         overrides: &[],
//!         power: Power {
//!             pm1_event_port: 0x600,
//!             pm1_control_port: 0x604,
//!             pm_timer_port: None,
//!             sci: 9,
//!             reset: Reset { port: 0xcf9, value: 6 },
//!             s5_sleep_type: 5,
//!         },
//!         legacy: Legacy { isa_devices: true, ..Legacy::default() },
//!         devices: &[com1, disk],
//!         ecam: None,
//!     },
//!     0xf_0000..0x10_0000,
//! )?;
//! assert_eq!(tables.rsdp.gpa, 0xf_0000);
//! let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
//! assert_eq!(names, ["RSDP", "FACS", "XSDT", "FACP", "APIC", "DSDT"]);
//! # Ok::<(), vmm_acpi::Error>(())
//! ```
#![forbid(unsafe_code)]

mod description;
mod dsdt;
mod error;
mod fadt;
mod fragment;
mod madt;
mod pci;
mod render;
mod table;

pub use description::{Cpu, Description, IoApic, Legacy, Override, Polarity, Power, Reset, Rtc, Trigger};
pub use error::Error;
pub use fragment::{Fragment, io_device, mmio_device, motherboard};
pub use pci::pci_root;
pub use render::{Tables, render};
pub use table::Table;

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
