//! A snapshot that was written: a directory, or a state and a memory file.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::error::Error;
use crate::file_names::{MANIFEST_JSON, MEMORY, STATE};
use crate::format_error::FormatError;
use crate::limits::{MAX_MANIFEST_LEN, MAX_STATE_LEN};
use crate::manifest::Manifest;
use crate::snapshot_files::check_memory;
use crate::state_file::StateFile;

/// A snapshot whose checksums and manifest are valid and whose memory file is long enough. What its sections contain isn't known yet.
#[derive(Debug)]
pub struct Snapshot {
    /// The state.
    pub state: StateFile,
    /// The memory, open for reading.
    pub memory: File,
}

impl Snapshot {
    /// Opens the snapshot in a directory.
    ///
    /// # Errors
    /// A file can't be read or is refused, or `manifest.json` and the manifest in the state differ.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let manifest = read_manifest(directory)?;
        let snapshot = Self::open_files(&directory.join(STATE), &directory.join(MEMORY))?;
        if *snapshot.state.manifest() != manifest {
            return Err(Error::OtherManifest(directory.to_owned()));
        }
        Ok(snapshot)
    }

    /// Opens a state and a memory file that needn't be in a snapshot's directory. Disks that are in the snapshot are then not found.
    ///
    /// # Errors
    /// A file can't be read or is refused.
    pub fn open_files(state: &Path, memory: &Path) -> Result<Self, Error> {
        let files = (open(state)?, open(memory)?);
        Self::check(files, (&state.display().to_string(), &memory.display().to_string()))
    }

    /// The snapshot in a state and a memory file, which are at their beginnings.
    ///
    /// # Errors
    /// A file can't be read or is refused.
    pub fn of_files(state: File, memory: File) -> Result<Self, Error> {
        Self::check((state, memory), (STATE, MEMORY))
    }

    fn check((state, memory): (File, File), places: (&str, &str)) -> Result<Self, Error> {
        let long = |len| FormatError::LongState { len };
        let bytes = read(state, places.0, MAX_STATE_LEN, long)?;
        let state = StateFile::parse(bytes).map_err(Error::format(places.0))?;
        check_memory(&memory, places.1, &state.manifest().memory)?;
        Ok(Self { state, memory })
    }

    /// Checks the disks whose contents are in the snapshot: regular files of the right lengths.
    pub(crate) fn check_disks(&self, directory: &Path) -> Result<(), Error> {
        for disk in &self.state.manifest().disks {
            let Some(path) = disk.saved_as() else { continue };
            let path = directory.join(path);
            let place = path.display().to_string();
            let metadata = open(&path)?.metadata().map_err(Error::at(&path))?;
            if !metadata.is_file() {
                return Err(Error::NotRegular(place));
            }
            if metadata.len() < disk.len {
                return Err(Error::Short { place, len: metadata.len(), needed: disk.len });
            }
        }
        Ok(())
    }
}

/// Reads `manifest.json` in the directory of a snapshot, and nothing else.
///
/// # Errors
/// It can't be read, or is refused.
pub fn read_manifest(directory: &Path) -> Result<Manifest, Error> {
    let path = directory.join(MANIFEST_JSON);
    let place = path.display().to_string();
    let long = |len| FormatError::LongManifest { len };
    let text = read(open(&path)?, &place, MAX_MANIFEST_LEN, long)?;
    Manifest::parse(&text).map_err(Error::format(place))
}

/// Opens a file without waiting for the other end of a FIFO.
fn open(path: &Path) -> Result<File, Error> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(Error::at(path))
}

/// The contents of a file of at most `max` bytes.
fn read(file: File, place: &str, max: u64, long: fn(u64) -> FormatError) -> Result<Vec<u8>, Error> {
    let metadata = file.metadata().map_err(Error::io(place))?;
    if !metadata.is_file() {
        return Err(Error::NotRegular(place.to_owned()));
    }
    if metadata.len() > max {
        return Err(Error::format(place)(long(metadata.len())));
    }
    let mut bytes = Vec::new();
    // One more, if it grows meanwhile: a file that is too long is refused by the parser.
    file.take(max + 1).read_to_end(&mut bytes).map_err(Error::io(place))?;
    Ok(bytes)
}
