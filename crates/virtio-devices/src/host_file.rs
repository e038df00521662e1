//! What every device does with a file of the host that its guest may change: it is opened without doing anything to what is
//! none. [`lock`](crate::file_lock::lock) sees to it that it has one writer at a time.

use std::fs::{File, FileType, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vmm_virtio::OpenError;

/// What may be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// The field of the config that names a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) path: &'a Path,
    pub(crate) field: &'a str,
}

impl Place<'_> {
    /// The config is wrong: `problem` is what the file is or has, and what to change.
    pub(crate) fn wrong(&self, problem: &str) -> OpenError {
        OpenError::config(self.field, format!("{} {problem}", self.path.display()))
    }

    /// The host refuses; if it's the path that it refuses, the config is wrong.
    pub(crate) fn host(&self, problem: &str, error: &io::Error) -> OpenError {
        use nix::errno::Errno as Code;
        let text = format!("{} {problem}: {error}", self.path.display());
        match error.raw_os_error().map(Code::from_raw) {
            Some(Code::ELOOP) => {
                OpenError::config(self.field, format!("{text}: a symbolic link leads to itself, correct it"))
            }
            Some(Code::ENOENT | Code::ENOTDIR | Code::ENAMETOOLONG | Code::EISDIR) => {
                OpenError::config(self.field, format!("{text}: correct the path"))
            }
            _ => OpenError::host(self.field, text),
        }
    }
}

/// What a device wants of a file, in words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// What to name instead of what is none.
    pub(crate) noun: &'static str,
    /// What it is, if it is neither a regular file nor a block device.
    pub(crate) other: fn(FileType) -> &'static str,
}

/// Opens a regular file or a block device. It isn't locked.
pub(crate) fn open(place: Place<'_>, access: Access, wanted: Wanted) -> Result<(File, FileType), OpenError> {
    // Before it is opened: that blocks on a FIFO, and does things to some devices.
    let found = std::fs::metadata(place.path).map_err(|error| unopened(place, access, error))?;
    check(place, access, wanted, &found)?;
    let file = File::options()
        .read(true)
        .write(access == Access::ReadWrite)
        // If it has become a FIFO meanwhile.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(place.path)
        .map_err(|error| unopened(place, access, error))?;
    let found = file.metadata().map_err(|error| place.host("can't be looked at", &error))?;
    check(place, access, wanted, &found)?;
    // io_uring gives up too early on a file that mustn't block.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))
        .map_err(|error| place.host("can't be made to block", &error.into()))?;
    Ok((file, found.file_type()))
}

fn unopened(place: Place<'_>, access: Access, error: io::Error) -> OpenError {
    match (error.kind(), access) {
        (ErrorKind::NotFound | ErrorKind::NotADirectory, _) => {
            place.wrong("doesn't exist, create it or correct the path")
        }
        (ErrorKind::ReadOnlyFilesystem, Access::ReadWrite) => place.wrong(READ_ONLY),
        (ErrorKind::PermissionDenied, Access::ReadWrite) if File::open(place.path).is_ok() => {
            place.wrong(READ_ONLY)
        }
        (ErrorKind::PermissionDenied, _) => place.wrong("can't be opened: permission denied, see chmod(1)"),
        _ => place.host("can't be opened", &error),
    }
}

/// What a writer is told of what it can't write.
const READ_ONLY: &str = "is read-only but \"read_only\" is false, set that or let it be written";

fn check(place: Place<'_>, access: Access, wanted: Wanted, found: &Metadata) -> Result<(), OpenError> {
    let kind = found.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let (other, noun) = ((wanted.other)(kind), wanted.noun);
        return Err(place.wrong(&format!("is {other}, name {noun} or a block device")));
    }
    // Root could, but who took away every right to write meant it.
    if access == Access::ReadWrite && found.permissions().mode() & 0o222 == 0 {
        return Err(place.wrong(READ_ONLY));
    }
    Ok(())
}
