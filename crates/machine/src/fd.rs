//! Descriptors that the event loop reads and writes without ever waiting for one.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

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
    Failed(nix::errno::Errno),
}

/// A descriptor in non-blocking mode. If the mode was changed for somebody else too, it is changed back.
#[derive(Debug)]
pub(crate) struct HostFd {
    fd: OwnedFd,
    /// The flags to give back.
    restore: Option<OFlag>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
}

impl HostFd {
    /// Takes a descriptor that is ours alone.
    pub(crate) fn owned(fd: OwnedFd) -> io::Result<Self> {
        let flags = flags(fd.as_fd())?;
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { fd, restore: None })
    }

    /// Takes a standard stream.
    ///
    /// Its mode belongs to an open file that other processes share: a shell whose terminal is non-blocking
    /// misbehaves. So the file behind it is opened once more; where that can't be, as for a socket or another
    /// user's terminal, the mode is changed for all and restored at the end.
    pub(crate) fn standard(stream: BorrowedFd<'_>, direction: Direction) -> io::Result<Self> {
        let stat = nix::sys::stat::fstat(stream)?;
        let kind = nix::sys::stat::SFlag::from_bits_truncate(stat.st_mode);
        let fd = stream.try_clone_to_owned()?;
        // The kinds are numbers, not bits: S_IFSOCK has all bits of S_IFREG.
        if kind & nix::sys::stat::SFlag::S_IFMT == nix::sys::stat::SFlag::S_IFREG {
            // Never blocks, and the place in it is shared: a file opened anew would start at its beginning.
            return Ok(Self { fd, restore: None });
        }
        let again = OpenOptions::new()
            .read(direction == Direction::In)
            .write(direction == Direction::Out)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(format!("/proc/self/fd/{}", stream.as_raw_fd()));
        if let Ok(file) = again {
            return Ok(Self { fd: file.into(), restore: None });
        }
        let flags = flags(stream)?;
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { fd, restore: Some(flags) })
    }

    /// Another reference to the same file, to wait for it in another direction.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, restore: None })
    }

    pub(crate) fn read(&self, into: &mut [u8]) -> Transfer {
        transfer(|| nix::unistd::read(&self.fd, into))
    }

    pub(crate) fn write(&self, from: &[u8]) -> Transfer {
        transfer(|| nix::unistd::write(&self.fd, from))
    }
}

fn flags(fd: BorrowedFd<'_>) -> io::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?))
}

fn transfer(mut once: impl FnMut() -> nix::Result<usize>) -> Transfer {
    use nix::errno::Errno;
    loop {
        return match once() {
            Ok(0) => Transfer::Ended,
            Ok(len) => Transfer::Moved(len),
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => Transfer::Blocked,
            // A pty or terminal whose other end was closed says EIO.
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::EIO) => Transfer::Ended,
            Err(errno) => Transfer::Failed(errno),
        };
    }
}

impl AsFd for HostFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for HostFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for HostFd {
    fn drop(&mut self) {
        if let Some(flags) = self.restore {
            // The stream may have been closed behind our back; there is nobody to tell.
            let _ = fcntl(&self.fd, FcntlArg::F_SETFL(flags));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    #[test]
    fn standard_stream_of_a_file_goes_on_where_it_is() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abcdef").unwrap();
        file.seek(SeekFrom::Start(3)).unwrap();
        let fd = HostFd::standard(file.as_fd(), Direction::In).unwrap();
        let mut bytes = [0; 8];
        assert_eq!(fd.read(&mut bytes), Transfer::Moved(3));
        assert_eq!(&bytes[..3], b"def");
        assert_eq!(fd.read(&mut bytes), Transfer::Ended);
    }

    #[test]
    fn standard_stream_of_a_pipe_leaves_the_shared_mode_alone() {
        let (reader, writer) = io::pipe().unwrap();
        let fd = HostFd::standard(writer.as_fd(), Direction::Out).unwrap();
        assert!(!flags(writer.as_fd()).unwrap().contains(OFlag::O_NONBLOCK));
        let chunk = [0; 4096];
        while let Transfer::Moved(_) = fd.write(&chunk) {}
        assert_eq!(fd.write(&chunk), Transfer::Blocked, "a full pipe doesn't block us");
        drop(reader);
        assert_eq!(fd.write(&chunk), Transfer::Ended);
    }

    #[test]
    fn standard_stream_of_a_socket_gets_its_mode_back() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let fd = HostFd::standard(ours.as_fd(), Direction::In).unwrap();
        assert!(flags(ours.as_fd()).unwrap().contains(OFlag::O_NONBLOCK));
        assert_eq!(fd.read(&mut [0]), Transfer::Blocked);
        drop(fd);
        assert!(!flags(ours.as_fd()).unwrap().contains(OFlag::O_NONBLOCK));
    }
}
