//! Checks a snapshot without loading it.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::describe::{count, size};
use crate::error::Error;
use crate::snapshot::Snapshot;

/// Unit of a file's allocated blocks, whatever the file system's block size is (stat(2)).
const BLOCK_LEN: u64 = 512;

/// What a valid snapshot consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Number of sections.
    pub sections: usize,
    /// Length of the state.
    pub state_len: u64,
    /// Length of the guest's memory in the file, holes included.
    pub memory_len: u64,
    /// How much of it the host's file system stores.
    pub memory_stored: u64,
    /// Number of disks whose contents are in the snapshot.
    pub disks: usize,
}

/// Checks the snapshot in a directory: all checksums, that both manifests are the same, that it has the sections that these list, and the
/// lengths of memory and disks. What sections and memory contain isn't looked at.
///
/// # Errors
/// The first file that can't be read or is refused.
pub fn verify(directory: &Path) -> Result<Verified, Error> {
    let snapshot = Snapshot::open(directory)?;
    snapshot.check_disks(directory)?;
    let manifest = snapshot.state.manifest();
    let memory = snapshot.memory.metadata().map_err(Error::at(directory))?;
    Ok(Verified {
        sections: manifest.sections.len(),
        state_len: snapshot.state.len() as u64,
        memory_len: manifest.memory.len(),
        memory_stored: memory.blocks().saturating_mul(BLOCK_LEN),
        disks: manifest.disks.iter().filter(|disk| disk.saved_as().is_some()).count(),
    })
}

impl Verified {
    /// The amounts of memory and state, as part of a line.
    #[must_use]
    pub fn amounts(&self) -> String {
        let (sections, state) = (count(self.sections, "section"), size(self.state_len));
        let (memory, stored) = (size(self.memory_len), size(self.memory_stored));
        format!("{memory} of memory ({stored} stored), {sections} in {state} of state")
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sections, state_len, memory_len, memory_stored, disks } = *self;
        let (sections, disks) = (count(sections, "section"), count(disks, "disk"));
        let (state, memory, stored) = (size(state_len), size(memory_len), size(memory_stored));
        write!(
            formatter,
            "valid: {sections} in {state} of state, {memory} of memory ({stored} stored), {disks}"
        )
    }
}
