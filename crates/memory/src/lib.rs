//! Builds guest RAM over [vm-memory](vm_memory).
//!
//! [`GuestRam`] maps a list of guest-physical ranges into the monitor, zeroed, and hands out two things: the
//! [`Memory`] through which loaders and devices read and write, and the [`Region`]s that KVM's memory slots
//! are made of. No Rust reference to guest RAM exists; the guest may write any byte at any time. What the guest doesn't
//! need any more is given back to the host by [`GuestRam::discard`]. Its [`Backing`] is the monitor's own memory, or a file that other
//! processes can map too.
//!
//! [`FileMemory`] maps a file for the guest alone.
//!
//! ```
//! use vmm_memory::GuestRam;
//! use vmm_memory::vm_memory::{Bytes, GuestAddress};
//!
//! // 1 MiB at 0 and 1 MiB above 4 GiB.
//! let ram = GuestRam::new(&[0..0x10_0000, 0x1_0000_0000..0x1_0010_0000])?;
//! ram.memory().write_obj(0x1234_u16, GuestAddress(0x1_0000_0000))?;
//! assert_eq!(ram.memory().read_obj::<u16>(GuestAddress(0x1_0000_0000))?, 0x1234);
//! assert_eq!(ram.regions().count(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod file;
mod mapping;
mod ram;
mod shared;

pub use file::{Access, FileMemory, FileMemoryError};
pub use ram::{Backing, DiscardError, Error, GuestRam, Memory, Region};
/// The crate whose traits read and write [`Memory`].
pub use vm_memory;

/// Size of a page of the host and the guest, in bytes.
pub const PAGE_LEN: u64 = 4096;
