//! The directory of a snapshot that is being written: complete, or not there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::Error;
use crate::file_names::{DISKS, MANIFEST_JSON, MEMORY, STATE};
use crate::manifest::Manifest;
use crate::snapshot::Snapshot;
use crate::snapshot_files::{SnapshotFiles, write_new};
use crate::snapshot_id::SnapshotId;

/// The directory of a snapshot that is being written. It has a temporary name beside its own until it is complete, and is removed if
/// this value is dropped before, unless it is [kept](Self::keep). A process that is killed leaves a directory `.vmm-snapshot-*`.
///
/// Only its user can read it: guest memory has passwords and keys.
#[derive(Debug)]
pub struct NewSnapshot {
    destination: PathBuf,
    temporary: PathBuf,
    /// It isn't removed.
    stays: bool,
}

impl NewSnapshot {
    /// Begins a snapshot that will be at `destination`.
    ///
    /// # Errors
    /// `destination` exists or has no name of its own, or nothing can be created in the directory above it.
    pub fn create(destination: &Path) -> Result<Self, Error> {
        if destination.file_name().is_none() {
            return Err(Error::NoName(destination.to_owned()));
        }
        match fs::symlink_metadata(destination) {
            Ok(_) => return Err(Error::Exists(destination.to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::at(destination)(error)),
        }
        let parent = parent_of(destination);
        // The name doesn't contain the other one, which may be as long as names can be.
        let id = SnapshotId::random().map_err(Error::at(destination))?;
        let temporary = parent.join(format!(".vmm-snapshot-{id}"));
        DirBuilder::new().mode(0o700).create(&temporary).map_err(Error::at(parent))?;
        Ok(Self { destination: destination.to_owned(), temporary, stays: false })
    }

    /// Creates the files of the snapshot. May be called once.
    ///
    /// # Errors
    /// A file can't be created.
    pub fn files(&self) -> Result<SnapshotFiles, Error> {
        Ok(SnapshotFiles {
            manifest: Some(self.create_file(MANIFEST_JSON)?),
            state: self.create_file(STATE)?,
            memory: self.create_file(MEMORY)?,
        })
    }

    /// Creates a file for the contents of a disk, and returns its path in the snapshot too, as the manifest has it.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn disk(&self, name: &str) -> Result<(File, String), Error> {
        let directory = self.temporary.join(DISKS);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::at(&directory)(error));
            }
            _ => {}
        }
        let path = format!("{DISKS}/{name}");
        Ok((self.create_file(&path)?, path))
    }

    /// Writes `manifest.json`, after another process has written state and memory to these [files](Self::files): a copy of the manifest
    /// in the state.
    ///
    /// # Errors
    /// State or memory isn't complete, or the host can't write the copy.
    pub fn copy_manifest(&self, files: SnapshotFiles) -> Result<(), Error> {
        let SnapshotFiles { manifest, mut state, memory } = files;
        // The position is shared with the other process.
        state.rewind().map_err(Error::io(STATE))?;
        let snapshot = Snapshot::of_files(state, memory)?;
        let text = snapshot.state.manifest().to_json().map_err(Error::format(MANIFEST_JSON))?;
        manifest.map_or(Ok(()), |file| write_new(file, MANIFEST_JSON, text.as_bytes()))
    }

    /// Keeps what is written even if it isn't published, and returns its directory.
    pub fn keep(&mut self) -> &Path {
        self.stays = true;
        &self.temporary
    }

    /// Gives the snapshot its name, if [it is complete](crate::verify), when the host's storage has all of it.
    ///
    /// # Errors
    /// A file is missing or refused, there is something at the destination by now, or the host can't store it. Nothing is left then, unless
    /// it is [kept](Self::keep), but for one case: the directory above can't be synced, and the snapshot, though complete, may be gone after a crash of the host.
    pub fn publish(mut self) -> Result<Manifest, Error> {
        let snapshot = Snapshot::open(&self.temporary)?;
        snapshot.check_disks(&self.temporary)?;
        let manifest = snapshot.state.manifest().clone();
        for path in manifest.disks.iter().filter_map(|disk| disk.saved_as()) {
            sync(&self.temporary.join(path))?;
        }
        if self.temporary.join(DISKS).exists() {
            sync(&self.temporary.join(DISKS))?;
        }
        for name in [MANIFEST_JSON, STATE, MEMORY, "."] {
            sync(&self.temporary.join(name))?;
        }
        self.rename()?;
        self.stays = true;
        sync(parent_of(&self.destination))?;
        Ok(manifest)
    }

    /// Without replacing an empty directory, as rename(2) would.
    fn rename(&self) -> Result<(), Error> {
        match renameat_with(CWD, &self.temporary, CWD, &self.destination, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => Err(Error::Exists(self.destination.clone())),
            // A file system without that flag. What may be replaced is an empty directory, of the last moment.
            Err(Errno::INVAL) if self.destination.symlink_metadata().is_ok() => {
                Err(Error::Exists(self.destination.clone()))
            }
            Err(Errno::INVAL) => {
                fs::rename(&self.temporary, &self.destination).map_err(Error::at(&self.destination))
            }
            other => other.map_err(|error| Error::at(&self.destination)(error.into())),
        }
    }

    fn create_file(&self, name: &str) -> Result<File, Error> {
        let path = self.temporary.join(name);
        let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        opened.map_err(Error::at(&path))
    }
}

impl Drop for NewSnapshot {
    fn drop(&mut self) {
        if !self.stays {
            // If that fails, the error that led here matters more.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// The directory that has the last component of a path.
fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Waits until the host's storage has a file or a directory.
fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::at(path))
}
