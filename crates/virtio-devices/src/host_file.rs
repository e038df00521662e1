//! What every device does with a file of the host that its guest may change: one writer at a time.
//!
//! The lock is the kernel's, of the open file description (Linux, fcntl(2), F_OFD_SETLK): it ends with the last descriptor,
//! however the monitor ends, and two disks of one machine exclude each other as two machines do. It binds only those who
//! ask for it, as QEMU and other monitors do.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
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

    pub(crate) fn host(&self, problem: &str, error: &io::Error) -> OpenError {
        OpenError::host(self.field, format!("{} {problem}: {error}", self.path.display()))
    }
}

/// Locks all of `file`, against everybody for a writer and against writers for a reader.
/// `instead` is what else a second writer may do.
pub(crate) fn lock(file: &File, place: Place<'_>, access: Access, instead: &str) -> Result<(), OpenError> {
    let kind = match access {
        Access::Read => libc::F_RDLCK,
        Access::ReadWrite => libc::F_WRLCK,
    };
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        // To the end, wherever that will be.
        l_len: 0,
        // What an open file description's lock asks for.
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(match access {
            Access::Read => {
                place.wrong("is locked by another that writes it: stop that one, or copy the image")
            }
            Access::ReadWrite => place.wrong(&format!(
                "is locked by another: stop that one, or set \"read_only\" for both{instead}"
            )),
        }),
        Err(error) => Err(place.host("can't be locked", &error.into())),
    }
}
