//! virtio 1.2 device model: devices are written independently of transport, thread and machine.
//!
//! - [`VirtioDevice`] is the device: it processes descriptor chains from its queues. [`Kind`] holds its
//!   static properties, and a [`KindEntry`] makes it a row in a table of device kinds.
//! - [`Queue::drain`] is the queue-processing loop, written once: notification suppression and validation of
//!   chains.
//! - [`Chain`] and [`Buffers`] are the driver's bytes. No Rust reference to guest memory exists.
//! - [`Control`] is the device's state machine towards the driver, and owns the device's thread, `vq-<id>`.
//!   [`MmioTransport`] exposes it as registers.
//! - [`Persistence`] is what a snapshot keeps of a device, and [`MmioState`] and [`PciState`] what it keeps of a device with its
//!   transport and queues.
//! - [`VhostNet`] and [`VhostVsock`] are queues that the host's kernel serves.
//! - [`port()`] connects a console device and its host backend.
//!
//! ```text
//!  vCPU --registers--> MmioTransport --> Control --commands--> vq-<id>: VirtioDevice + Session (queues)
//!  vCPU --notification, an eventfd that KVM writes----------->    |
//!  vCPU <-interrupt, an eventfd that KVM reads--------------------+
//! ```
//!
//! If a driver violates the specification, its device sets DEVICE_NEEDS_RESET; the monitor keeps running.
//!
//! ```
//! use vmm_virtio::{Fault, Session, Step, VirtioDevice};
//!
//! /// Fills every buffer with sevens.
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
//!
//! As a [`Kind`] it can be in a table and has fields in a config. A device's file needs no other crate than this one:
//!
//! ```
//! # use vmm_virtio::{Fault, Session, VirtioDevice};
//! use vmm_virtio::schemars::JsonSchema;
//! use vmm_virtio::serde::Deserialize;
//! use vmm_virtio::serde_json::json;
//! use vmm_virtio::{DeviceError, Kind, KindEntry, Setting};
//!
//! struct Fill(u8);
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(crate = "vmm_virtio::serde", deny_unknown_fields)]
//! #[schemars(crate = "vmm_virtio::schemars")]
//! struct Config {
//!     byte: u8,
//! }
//!
//! impl Kind for Fill {
//!     const NAME: &'static str = "fill";
//!     const ID: u32 = 42;
//!     type Config = Config;
//!
//!     fn open(config: Config, _setting: &Setting<'_>) -> Result<Self, DeviceError> {
//!         Ok(Self(config.byte))
//!     }
//! }
//! # impl VirtioDevice for Fill {
//! #     fn queue_sizes(&self) -> Vec<u16> {
//! #         vec![64]
//! #     }
//! #     fn process(&mut self, _queue: usize, _session: &mut Session) -> Result<(), Fault> {
//! #         Ok(())
//! #     }
//! # }
//!
//! let kinds = [KindEntry::of::<Fill>()];
//! let setting = Setting { directory: ".".as_ref(), vcpus: 1, id: "fill0", plan_only: false };
//! let refused = kinds[0].open(json!({"bite": 7}), &setting).err().unwrap();
//! assert!(refused.to_string().ends_with("bite: unknown field, did you mean \"byte\"?"));
//! ```
#![forbid(unsafe_code)]

mod buffers;
mod chain;
mod config_space;
mod control;
mod control_state;
mod counters;
mod device;
mod device_error;
mod device_section;
mod disk_report;
mod fault;
mod interrupt;
mod kind;
mod mmio;
mod notices;
mod pci;
mod persistence;
mod port;
mod queue;
mod save_error;
mod segment;
mod start_error;
mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod undelivered;
mod vhost;
mod worker;

pub use buffers::Buffers;
pub use chain::{Chain, Head};
pub use config_space::ConfigSpace;
pub use control::{Control, ControlParams};
pub use counters::{Counter, Counters};
pub use device::{Claim, Mapping, Session, VirtioDevice};
pub use device_error::{DeviceBlame, DeviceError};
pub use device_section::DeviceSection;
pub use disk_report::DiskReport;
pub use fault::Fault;
pub use interrupt::Interrupt;
pub use kind::{Kind, KindEntry, Setting};
pub use mmio::{MMIO_LEN, MMIO_NOTIFY, MmioState, MmioTransport};
pub use notices::Notices;
pub use pci::{
    MessageLine, MessageSender, PCI_BAR, PCI_BAR_LEN, PCI_NOTIFY, PCI_NOTIFY_STRIDE, PciState, PciTransport,
};
pub use persistence::{OwnState, Persistence, Persistent};
pub use port::{DevicePort, HostEnd, HostPort, INPUT_MAX, TerminalSize, port};
pub use queue::{Queue, Step};
pub use save_error::SaveError;
pub use start_error::StartError;
pub use undelivered::Undelivered;
pub use vhost::{VHOST_TOKENS, VhostNet, VhostVsock};
/// What the host's side of a device waits for.
pub use vmm_bus::EventFd;
/// How the fields of a config are read, and the types of their values.
pub use vmm_config;
pub use vmm_config::NoFields;
/// The volatile slices of guest memory that [`Buffers`] yields, and the traits to read and write them.
pub use vmm_memory::vm_memory;
/// How a device declares what it needs of the host.
pub use vmm_sandbox::{Allow, Needs};
/// How a device's state is written and read.
pub use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};
pub use worker::DEVICE_CALLS;
/// What [`Kind::Config`] is derived by, in the versions that this crate uses: `#[serde(crate = "vmm_virtio::serde")]`,
/// `#[schemars(crate = "vmm_virtio::schemars")]`.
pub use {schemars, serde, serde_json};

#[cfg(test)]
mod tests;

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
