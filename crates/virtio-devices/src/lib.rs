//! The virtio devices, one module each. They don't depend on each other.
//!
//! [`KINDS`] is the table of device kinds: a config's `type`, the virtio device id, and how to open the
//! device. A new device is a module that implements `Kind` of vmm-virtio plus a row here; see
//! docs/adding-a-device.md.
//!
//! Three features, all on by default, bring the larger dependencies. Every device exists without them; a config that asks for what
//! has been left out is refused with an error that names the feature.
//!
//! | feature | what it adds | brings |
//! |---|---|---|
//! | `io-uring` | disks by io_uring; without it, by threads | io-uring |
//! | `qcow2` | disks in the format qcow2 | imago, ruzstd |
//! | `usernet` | the network card's backend `user` | vmm-usernet, smoltcp |
//!
//! ```
//! use vmm_virtio_devices::KINDS;
//!
//! let rng = KINDS.iter().find(|kind| kind.name == "rng").unwrap();
//! assert_eq!(rng.id, 4);
//! ```

mod balloon;
pub mod block;
mod console;
mod descriptors;
mod failure;
mod file_lock;
mod host_file;
mod image_format;
mod left_out;
mod limits;
mod loop_device;
mod net;
mod place;
mod pmem;
mod rng;
mod shell;
mod space;
mod timer;
mod vhost;
pub mod vsock;

use vmm_virtio::KindEntry;

pub use balloon::Balloon;
pub use block::Block;
pub use console::Console;
pub use net::Net;
pub use pmem::Pmem;
pub use rng::Rng;
pub use vsock::Vsock;

/// All device kinds.
pub const KINDS: &[KindEntry] = &[
    KindEntry::of::<Balloon>(),
    KindEntry::of::<Block>(),
    KindEntry::of::<Console>(),
    KindEntry::of::<Net>(),
    KindEntry::of::<Pmem>(),
    KindEntry::of::<Rng>(),
    KindEntry::of::<Vsock>(),
];

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
