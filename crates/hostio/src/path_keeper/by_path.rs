//! The two operations, with the file system of this process.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, lstat, unlink};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

const NON_BLOCKING: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// What a file may contain to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Anything.
    Any,
    /// Nothing: it has no bytes.
    Empty,
}

/// Connects a stream socket to `path` without blocking. The connection is non-blocking.
///
/// # Errors
/// Nobody listens there, or the backlog is full (EAGAIN).
pub(crate) fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, NON_BLOCKING, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Removes the name `path`, if it is that of this inode. Doesn't follow a link.
///
/// # Errors
/// ESTALE if it is another's, ENOTEMPTY if the file has contents and must have none.
pub(super) fn remove_if_same(path: &Path, device: u64, inode: u64, contents: Contents) -> Result<(), Errno> {
    let found = lstat(path)?;
    if (found.st_dev, found.st_ino) != (device, inode) {
        return Err(Errno::STALE);
    }
    if contents == Contents::Empty && found.st_size != 0 {
        return Err(Errno::NOTEMPTY);
    }
    unlink(path)
}

/// Whether `path` is the name of a socket.
pub(super) fn is_socket(path: &Path) -> bool {
    lstat(path).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Socket)
}
