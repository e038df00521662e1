//! The results of non-blocking reads and writes.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::termios::tcgetattr;

/// The result of a non-blocking read or write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// This many bytes were transferred, at least 1.
    Moved(usize),
    /// It would block.
    Blocked,
    /// There will be no more transfers: end of file, or the other end was closed.
    Ended,
    /// A system call failed.
    Failed(Errno),
}

impl From<Result<usize, Errno>> for Transfer {
    fn from(result: Result<usize, Errno>) -> Self {
        match result {
            Ok(0) => Self::Ended,
            Ok(len) => Self::Moved(len),
            Err(Errno::EAGAIN) => Self::Blocked,
            Err(Errno::EPIPE | Errno::ECONNRESET) => Self::Ended,
            Err(errno) => Self::Failed(errno),
        }
    }
}

/// The result of a read or write of `fd`, in which a pty or terminal whose other end was closed has ended. It returns EIO, which from
/// other files is a failure of their storage.
pub(crate) fn end_of_terminal(fd: impl AsFd, result: Result<usize, Errno>) -> Result<usize, Errno> {
    match result {
        Err(Errno::EIO) if is_terminal(fd) => Ok(0),
        result => result,
    }
}

/// Whether it is a terminal, even a closed one, whose modes can't be read.
fn is_terminal(fd: impl AsFd) -> bool {
    matches!(tcgetattr(fd), Ok(_) | Err(Errno::EIO))
}
