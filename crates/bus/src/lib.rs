//! Routes a guest's port and MMIO accesses to the device that claims the address.
//!
//! Three ideas, each in its own file:
//! - [`BusDevice`] is what a device is to the rest of the machine: registers that are read and written.
//!   What an access asks of the machine beyond the device comes back as an [`Outcome`].
//! - [`Bus`] is the map from addresses to devices. It is immutable once published and replaced whole, so
//!   each vCPU keeps a [`BusView`] of its own and a lookup takes no lock.
//! - [`IrqLine`] is a device's wire to the interrupt controller: an eventfd that somebody else, usually
//!   KVM's irqfd, listens to.
//!
//! There is one bus for ports and one for MMIO. The crate knows neither KVM nor any device.
//!
//! ```
//! use std::sync::Arc;
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
//! bus.insert(0x3f8, 8, Arc::new(Ruler))?;
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
mod irq;
mod map;

pub use device::{BusDevice, Outcome, Power};
pub use irq::IrqLine;
pub use map::{Bus, BusView, Error};
