//! The files of a snapshot that is being written.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{OFlags, fcntl_getfl};

use crate::error::Error;
use crate::file_names::{MANIFEST_JSON, MEMORY, STATE};
use crate::manifest::Manifest;
use crate::memory_layout::MemoryLayout;
use crate::memory_writer::MemoryWriter;
use crate::state_writer::StateWriter;

/// The files of a snapshot that is being written: new, open for writing, and of anybody's making. So a monitor that may open nothing can
/// write files that it was given.
///
/// The order: [`start_memory`](Self::start_memory), the pages, [`finish`](Self::finish). It makes the system calls fstat (statx),
/// ftruncate, pwrite64, fsync and close, and for files of somebody else's making fcntl with F_GETFL.
#[derive(Debug)]
pub struct SnapshotFiles {
    /// A copy of the manifest to read, which a pair of a state and a memory file does without.
    pub manifest: Option<File>,
    /// The state.
    pub state: File,
    /// The memory.
    pub memory: File,
}

impl SnapshotFiles {
    /// Files that somebody else has made and opened, who writes `manifest.json` too: [`NewSnapshot`](crate::NewSnapshot) in another process.
    ///
    /// # Errors
    /// One isn't an empty regular file that is open for reading and writing, or both are the same.
    pub fn of(state: File, memory: File) -> Result<Self, Error> {
        for (file, place) in [(&state, STATE), (&memory, MEMORY)] {
            check_new(file, place)?;
            check_mode(file, place)?;
        }
        let of_state = state.metadata().map_err(Error::io(STATE))?;
        let of_memory = memory.metadata().map_err(Error::io(MEMORY))?;
        if (of_state.dev(), of_state.ino()) == (of_memory.dev(), of_memory.ino()) {
            return Err(Error::SameFile);
        }
        Ok(Self { manifest: None, state, memory })
    }

    /// Extends the memory file to its whole length, and writes guest memory to it.
    ///
    /// # Errors
    /// It isn't an empty regular file, or the host doesn't allow that length.
    pub fn start_memory<'a>(&'a self, layout: &'a MemoryLayout) -> Result<MemoryWriter<'a>, Error> {
        check_new(&self.memory, MEMORY)?;
        self.memory.set_len(layout.len()).map_err(Error::io(MEMORY))?;
        Ok(MemoryWriter::new(&self.memory, layout))
    }

    /// Writes state and manifest, and waits until the host's storage has all files.
    ///
    /// # Errors
    /// The manifest doesn't fit the state or the memory file, a file isn't empty, or the host can't write one.
    pub fn finish(self, state: StateWriter, manifest: &Manifest) -> Result<(), Error> {
        check_memory(&self.memory, MEMORY, &manifest.memory)?;
        self.memory.sync_all().map_err(Error::io(MEMORY))?;
        let bytes = state.finish(manifest).map_err(Error::format(STATE))?;
        write_new(self.state, STATE, &bytes)?;
        let Some(file) = self.manifest else { return Ok(()) };
        let text = manifest.to_json().map_err(Error::format(MANIFEST_JSON))?;
        write_new(file, MANIFEST_JSON, text.as_bytes())
    }
}

/// Checks that a file is a regular one with all of the memory of `layout`.
///
/// # Errors
/// It isn't.
pub fn check_memory(file: &File, place: &str, layout: &MemoryLayout) -> Result<(), Error> {
    let metadata = file.metadata().map_err(Error::io(place))?;
    if !metadata.is_file() {
        return Err(Error::NotRegular(place.to_owned()));
    }
    let (len, needed) = (metadata.len(), layout.len());
    if len < needed {
        return Err(Error::Short { place: place.to_owned(), len, needed });
    }
    Ok(())
}

/// Writes an empty file, and waits until the host's storage has it.
pub(crate) fn write_new(file: File, place: &str, bytes: &[u8]) -> Result<(), Error> {
    check_new(&file, place)?;
    // Where somebody else has left the position doesn't matter.
    file.write_all_at(bytes, 0).and_then(|()| file.sync_all()).map_err(Error::io(place))
}

/// Checks that a file of somebody else's making, for the contents of a disk, is an empty regular file that is open for reading and writing.
///
/// # Errors
/// It isn't.
pub fn check_new_file(file: &File, place: &str) -> Result<(), Error> {
    check_new(file, place)?;
    check_mode(file, place)
}

/// With O_APPEND, pwrite(2) writes at the end, whatever the offset.
fn check_mode(file: &File, place: &str) -> Result<(), Error> {
    let flags = fcntl_getfl(file).map_err(|errno| Error::io(place)(errno.into()))?;
    if flags & OFlags::RWMODE != OFlags::RDWR || flags.contains(OFlags::APPEND) {
        return Err(Error::Mode(place.to_owned()));
    }
    Ok(())
}

fn check_new(file: &File, place: &str) -> Result<(), Error> {
    let metadata = file.metadata().map_err(Error::io(place))?;
    if !metadata.is_file() {
        return Err(Error::NotRegular(place.to_owned()));
    }
    if metadata.len() > 0 {
        return Err(Error::NotEmpty(place.to_owned()));
    }
    Ok(())
}
