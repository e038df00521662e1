//! Names in a snapshot's directory.

/// The manifest, to read.
pub(crate) const MANIFEST_JSON: &str = "manifest.json";
/// The state.
pub(crate) const STATE: &str = "state";
/// Guest memory.
pub(crate) const MEMORY: &str = "memory";
/// The directory with the contents of disks.
pub(crate) const DISKS: &str = "disks";
