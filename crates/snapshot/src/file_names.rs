//! Names in a snapshot's directory.

/// The directory with the contents of disks.
pub(crate) const DISKS: &str = "disks";
