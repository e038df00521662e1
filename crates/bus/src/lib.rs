//! Routes guest port and MMIO accesses to devices.
//!
//! - [`BusDevice`] is the device's interface: registers that are read and written. What a write requests from
//!   the machine is returned as an [`Outcome`], such as a [`SystemEvent`], which ends the machine.
//! - [`Bus`] maps addresses to devices. Each map is immutable once published, and is replaced as a whole. A
//!   vCPU keeps a [`BusView`] of its own, so a lookup takes no lock.
//! - [`IrqLine`] is an interrupt line: an eventfd whose listener is usually a KVM irqfd.
//! - [`EventFd`] is the eventfd that all crates hand out: non-blocking, with a descriptor to poll.
//! - [`Output`] is a bounded queue of bytes from a device to the host, with back-pressure.
//!
//! Ports and MMIO have separate buses. The crate depends neither on KVM nor on any device.
//!
//! ```
//! use vmm_bus::{Bus, BusDevice, Outcome};
//!
//! /// Reads as its own offset.
//! struct Ruler;
//! impl BusDevice for Ruler {
//!     fn read(&self, offset: u64, data: &mut [u8]) {
//!         data.fill(offset as u8);
//!     }
//!     fn write(&self, _offset: u64, _data: &[u8]) -> Outcome {
//!         Outcome::Done
//!     }
//! }
//!
//! let bus = Bus::new();
//! bus.insert(0x3f8..0x400, Ruler)?;
//! let mut view = bus.view();
//! let mut byte = [0];
//! view.read(0x3fb, &mut byte);
//! assert_eq!(byte, [3]);
//! view.read(0x60, &mut byte);
//! assert_eq!(byte, [0xff], "nobody claims port 0x60");
//! # Ok::<(), vmm_bus::Error>(())
//! ```
#![forbid(unsafe_code)]

mod device;
mod event_fd;
mod irq;
mod map;
mod output;

pub use device::{BusDevice, Outcome, SystemEvent};
pub use event_fd::EventFd;
pub use irq::IrqLine;
pub use map::{Bus, BusView, Error};
pub use output::{Output, Overflow, TakeOutcome};

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
