//! A driver to test devices with, well-behaved or malicious.
//!
//! [`Driver`] owns guest memory, a device with its real thread and [`MmioTransport`](crate::MmioTransport) or
//! [`PciTransport`](crate::PciTransport), and the interrupt's eventfd. It uses only registers, memory and eventfds. Nothing sleeps: it waits for an
//! eventfd until it is written, or panics with what it waited for at the [`DEADLINE`]. The device's thread may make only the system calls
//! that the device [needs](crate::VirtioDevice::needs), as in the monitor, unless [`without_filters`] was called.
//!
//! ```
//! use vmm_virtio::testing::{Buf, Driver};
//! use vmm_virtio::{Fault, Session, Step, VirtioDevice};
//!
//! /// Copies one byte from the readable to the writable part.
//! struct Mirror;
//!
//! impl VirtioDevice for Mirror {
//!     fn queue_sizes(&self) -> Vec<u16> {
//!         vec![8]
//!     }
//!
//!     fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
//!         session.drain(queue, |chain| {
//!             let mut byte = [0];
//!             chain.readable().read(&mut byte)?;
//!             chain.writable().write(&byte)?;
//!             Ok(Step::Used(1))
//!         })
//!     }
//! }
//!
//! let mut driver = Driver::new(Box::new(Mirror), 42);
//! driver.init(0);
//! let used = driver.queue(0).request(&[Buf::Read(b"7"), Buf::Write(1)]);
//! assert_eq!(used.written(), b"7");
//! driver.reset();
//! ```
//!
//! [`conformance!`](crate::conformance) generates more than a hundred conformance tests for a device, with each transport.

mod arena;
mod changing;
pub mod conformance;
mod driver;
mod loose;
mod port;
mod random;
mod registers;
mod ring;
mod rings;
mod section;
mod snapshot;
mod wait;

pub use changing::ChangingRam;
pub(crate) use changing::was_read;
pub use conformance::Expectations;
pub use driver::{Driver, without_filters};
pub use loose::LooseChain;
pub use port::{PciPort, Port};
pub use random::Random;
pub use registers::Register;
pub use rings::{Buf, Descriptor, Rings, UNWRITTEN, Used};
pub use wait::DEADLINE;

/// [`Driver::init`] accepts these in addition to the device's own features.
pub mod features {
    use virtio_bindings::bindings::{virtio_config, virtio_ring};

    /// VIRTIO_F_VERSION_1, which all devices require.
    pub const VERSION_1: u64 = 1 << virtio_config::VIRTIO_F_VERSION_1;
    /// VIRTIO_F_INDIRECT_DESC.
    pub const INDIRECT: u64 = 1 << virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
    /// VIRTIO_F_EVENT_IDX.
    pub const EVENT_IDX: u64 = 1 << virtio_ring::VIRTIO_RING_F_EVENT_IDX;
}

/// The bits of the device status register (virtio 1.2 §2.1).
pub mod status {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive the device.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u8 = 8;
    /// The device has failed.
    pub const NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}
