//! A monitor's host interfaces besides KVM. Nothing here blocks unless its documentation says so.
//!
//! - [`Engine`] reads and writes files with many requests in flight, by io_uring or threads. [`IoSlices`]
//!   passes guest memory ([`GuestBytes`]) to the kernel without a copy.
//!   The feature `io-uring`, on by default, brings the crate io-uring; without it there are only threads, and
//!   [`IoMethod::Uring`] is refused.
//! - [`FramePort`] is a TAP or a socket in place of one; [`Vhost`] is the kernel's own virtio server.
//! - [`loop_device`] finds the loop device over a file, and the file under a loop device; [`overlay_mount`]
//!   finds the overlay file system that shows a file under another name.
//! - [`NamedSocket`] is a listening unix socket that only its user can connect to.
//! - [`path_keeper`] is a process that connects to sockets and removes files for a monitor that has no file
//!   system any more.
//! - [`range_lock`] locks ranges of files as QEMU does, so that two programs don't use the same image;
//!   [`InputLock`] marks a file that a machine reads, such as its kernel.
//! - [`RateLimiter`] decides when the next request may start.
//! - [`terminal`] makes the user's terminal raw and restores it; [`crash`] restores it when the process dies
//!   of a fatal signal.
//!
//! ```
//! use std::sync::Arc;
//!
//! use vmm_hostio::{Durable, Engine, GuestRange, GuestRanges, IoMethod, IoRequest};
//! use vmm_memory::GuestRam;
//!
//! let ram = GuestRam::new(&[0..0x10000])?;
//! let file = Arc::new(tempfile::tempfile()?);
//! let mut engine = Engine::new(IoMethod::Auto, 32, "disk", &[file])?;
//! let sector = [GuestRange { gpa: 0x1000, len: 512 }];
//! let write = IoRequest::Write(GuestRanges::new(&ram, &sector), Durable::No);
//! engine.submit(write, 0, 0, "the first sector").expect("there is room for 32");
//! engine.dispatch();
//! engine.wait();
//! assert!(matches!(engine.completed(), Some(("the first sector", Ok(())))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod crash;
mod file_io;
mod frame_port;
mod guest_bytes;
mod input_lock;
mod iovec;
pub mod loop_device;
pub mod overlay_mount;
pub mod path_keeper;
pub mod range_lock;
mod rate;
mod shortage;
pub mod terminal;
mod unix;
mod vhost;

pub use file_io::{Durable, ENGINE_CALLS, Engine, FILE_IO_CALLS, IoMethod, IoRequest};
pub use frame_port::{FRAME_PORT_CALLS, FramePort, NET_HEADER_LEN, TapError};
pub use guest_bytes::{GuestBytes, GuestRange, GuestRanges};
pub use input_lock::InputLock;
pub use iovec::IoSlices;
pub use rate::{Rate, RateLimiter};
pub use shortage::descriptor_remedy;
pub use terminal::RawMode;
pub use unix::{
    NAMED_SOCKET_MAX, NamedSocket, NamedSocketError, UNIX_NAME_MAX, connect_unix, is_monitors,
    missing_directory,
};
pub use vhost::{VHOST_CALLS, Vhost, VhostError, VhostRing};

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
