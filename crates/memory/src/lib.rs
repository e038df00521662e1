//! Builds guest RAM over [vm-memory](vm_memory).
//!
//! [`GuestRam`] maps a list of guest-physical ranges, zeroed, and provides the [`Memory`] that loaders and
//! devices read and write and the [`Region`]s that KVM memory slots are made of. The guest may write any byte
//! at any time, so no Rust reference to guest RAM exists. [`GuestRam::discard`] returns unused pages to the
//! host. Guest RAM is backed by private memory or by a memfd that other processes can map ([`Backing`]).
//!
//! [`GuestRam::populated`] lists what is worth saving, and [`GuestRam::from_file`] maps or copies what was saved
//! to a file.
//!
//! [`FileMemory`] maps a file for guest access only.
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

mod discarded;
mod file;
mod mapping;
mod pagemap;
mod populated;
mod ram;
mod restore;
mod shared;

pub use file::{Access, FileMemory, FileMemoryError};
pub use pagemap::Pagemap;
pub use ram::{Backing, DiscardError, Error, GuestRam, Memory, Region};
pub use restore::{FileRange, Loading};
/// Re-exported for its traits, which read and write [`Memory`].
pub use vm_memory;

/// Page size of host and guest, in bytes.
pub const PAGE_LEN: u64 = 4096;

/// Of the locks.
const NO_PANIC: &str = "no panic while it is held";

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
