//! virtio 1.2 for monitors: a device is written without knowing its transport, its thread or its machine.
//!
//! - [`VirtioDevice`] is what a device does: it takes chains from its queues. [`Kind`] is what is static of it, and an
//!   [`KindEntry`] makes it a line in a table of devices.
//! - [`Queue::drain`] is the ritual around a queue, written once: who may ring when, and which chains are sound.
//! - [`Chain`] and [`Buffers`] are a driver's bytes. Nobody has a Rust reference to guest memory.
//! - [`Control`] is a device's state machine towards its driver, and owns the thread `vq-<id>` that the device lives on;
//!   [`MmioTransport`] shows it as registers.
//! - [`VhostNet`] and [`VhostVsock`] are the host's kernel, which serves a device's queues itself.
//! - [`port()`] is the line between a console device and whoever shows it to the host.
//!
//! ```text
//!  vCPU --registers--> MmioTransport --> Control --commands--> vq-<id>: VirtioDevice + Session (queues)
//!  vCPU --notification, an eventfd that KVM writes----------->    |
//!  vCPU <-interrupt, an eventfd that KVM reads--------------------+
//! ```
//!
//! A driver that breaks the rules gets DEVICE_NEEDS_RESET, and its monitor lives.
//!
//! ```
//! use vmm_virtio::{Fault, Session, Step, VirtioDevice};
//!
//! /// Fills whatever it is given with sevens.
//! struct Sevens;
//!
//! impl VirtioDevice for Sevens {
//!     fn queue_sizes(&self) -> Vec<u16> {
//!         vec![64]
//!     }
//!
//!     fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
//!         session.drain(queue, |chain| {
//!             let mut len = 0;
//!             chain.writable().slices(|slice| {
//!                 slice.copy_from(&vec![7_u8; slice.len()]);
//!                 len += slice.len() as u32;
//!                 Ok(())
//!             })?;
//!             Ok(Step::Used(len))
//!         })
//!     }
//! }
//! ```
#![forbid(unsafe_code)]

mod buffers;
mod chain;
mod config_space;
mod control;
mod counters;
mod device;
mod device_error;
mod fault;
mod interrupt;
mod kind;
mod mmio;
mod notices;
mod port;
mod queue;
mod segment;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod vhost;
mod worker;

pub use buffers::Buffers;
pub use chain::{Chain, Head};
pub use config_space::ConfigSpace;
pub use control::{Control, Parts};
pub use counters::{Counter, Counters};
pub use device::{Claim, Mapping, Session, VirtioDevice};
pub use device_error::{DeviceBlame, DeviceError};
pub use fault::Fault;
pub use interrupt::Interrupt;
pub use kind::{Kind, KindEntry, Setting};
pub use mmio::{MMIO_LEN, MMIO_NOTIFY, MmioTransport};
pub use notices::Notices;
pub use port::{DevicePort, HostEnd, HostPort, TerminalSize, port};
pub use queue::{Queue, Step};
pub use vhost::{VHOST_TOKENS, VhostNet, VhostVsock};
/// The slices in which [`Buffers`] gives guest memory, and what they read and write.
pub use vmm_memory::vm_memory;

#[cfg(test)]
mod tests;
