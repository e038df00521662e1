//! What becomes of reads and writes.

use nix::errno::Errno;

/// What became of a transfer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// So many bytes moved, at least 1.
    Moved(usize),
    /// Nothing can move now.
    Blocked,
    /// Nothing will ever move again: end of file, or the other side has gone.
    Ended,
    /// The host failed.
    Failed(Errno),
}

impl From<Result<usize, Errno>> for Transfer {
    fn from(result: Result<usize, Errno>) -> Self {
        match result {
            Ok(0) => Self::Ended,
            Ok(len) => Self::Moved(len),
            Err(Errno::EAGAIN) => Self::Blocked,
            // A pty or terminal whose other end was closed says EIO.
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::EIO) => Self::Ended,
            Err(errno) => Self::Failed(errno),
        }
    }
}
