//! The results of non-blocking reads and writes.

use nix::errno::Errno;

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
            // A pty or terminal whose other end was closed returns EIO.
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::EIO) => Self::Ended,
            Err(errno) => Self::Failed(errno),
        }
    }
}
