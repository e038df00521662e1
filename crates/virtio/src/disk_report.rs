//! What a snapshot says of a disk.

use std::path::PathBuf;

/// The disk that a device is, for a snapshot's manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskReport {
    /// The file that the guest writes, or reads if it can't write.
    pub path: PathBuf,
    /// Length of the disk in bytes.
    pub len: u64,
    /// What identifies the contents of its files, as text.
    pub stamp: String,
}
