//! One writer for an image.
//!
//! The lock is the kernel's, of the open file description (Linux, fcntl(2), F_OFD_SETLK): it ends with the last descriptor,
//! however the monitor ends, and two disks of one machine exclude each other as two machines do. It binds only those who
//! ask for it, as QEMU and other monitors do.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use vmm_virtio::OpenError;

use super::file::{Access, Place};

/// Locks all of `file`, against everybody for a writer and against writers for a reader.
pub(super) fn lock(file: &File, place: Place<'_>, access: Access) -> Result<(), OpenError> {
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
        Err(Errno::EAGAIN | Errno::EACCES) => Err(place.wrong(match access {
            Access::Read => "is locked by another that writes it: stop that one, or copy the image",
            Access::ReadWrite => {
                "is locked by another: stop that one, or set \"read_only\" for both, or use an \"overlay\""
            }
        })),
        Err(error) => {
            let path = place.path.display();
            Err(OpenError::host(place.field, format!("{path} can't be locked: {}", error.desc())))
        }
    }
}
