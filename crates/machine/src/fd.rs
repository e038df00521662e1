//! Descriptors that the event loop reads and writes without blocking.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};

use crate::file_reader::FileReader;
use crate::file_writer::FileWriter;
use crate::transfer::{Transfer, end_of_terminal};

/// A descriptor whose reads and writes never block. The mode of an open file that other processes share isn't changed.
#[derive(Debug)]
pub(crate) enum HostFd {
    /// An open file of our own, in non-blocking mode.
    NonBlocking(OwnedFd),
    /// Input whose mode we can't change: polled before each read.
    Polled(OwnedFd),
    /// Input that may block in any mode.
    ThreadedInput(FileReader),
    /// Output that may block in any mode, or whose mode we can't change.
    ThreadedOutput(FileWriter),
}

/// The direction of a standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
}

impl HostFd {
    /// Takes a descriptor whose open file isn't shared, for output if it is a regular file or a block device. May block on the
    /// storage of such a file. Only this may: [`start`](Self::start), and writing, don't.
    pub(crate) fn owned(fd: OwnedFd) -> io::Result<Self> {
        if ignores_nonblocking_mode(fd.as_fd())? {
            return FileWriter::new(fd).map(Self::ThreadedOutput);
        }
        let flags = flags(fd.as_fd())?;
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self::NonBlocking(fd))
    }

    /// Takes a standard stream, which is usually shared with other processes. May block on the storage of a regular file.
    ///
    /// Setting O_NONBLOCK would affect them: a shell whose terminal is non-blocking misbehaves. So the file is opened again.
    /// Where that fails, as for a socket or another user's terminal, input is polled before each read and output is written by
    /// a thread. A regular file, whose position is shared, is read and written by a thread.
    pub(crate) fn standard(stream: BorrowedFd<'_>, direction: Direction) -> io::Result<Self> {
        let blocks = ignores_nonblocking_mode(stream)?;
        if !blocks && let Ok(fd) = open_again(stream, direction) {
            return Ok(Self::NonBlocking(fd));
        }
        let fd = stream.try_clone_to_owned()?;
        match direction {
            Direction::Out => FileWriter::new(fd).map(Self::ThreadedOutput),
            Direction::In if blocks => FileReader::new(fd).map(Self::ThreadedInput),
            Direction::In => Ok(Self::Polled(fd)),
        }
    }

    /// Starts the thread, if one is needed. Call it before the descriptor is used.
    ///
    /// # Errors
    /// The host is out of threads.
    pub(crate) fn start(&self) -> io::Result<()> {
        match self {
            Self::NonBlocking(_) | Self::Polled(_) => Ok(()),
            Self::ThreadedInput(reader) => reader.start(),
            Self::ThreadedOutput(writer) => writer.start(),
        }
    }

    /// Ends the thread of output, after its write in progress, until the next [`start`](Self::start). Returns whether there was one.
    /// May block on the file.
    pub(crate) fn stop(&self) -> bool {
        match self {
            Self::ThreadedOutput(writer) => writer.stop(),
            Self::NonBlocking(_) | Self::Polled(_) | Self::ThreadedInput(_) => false,
        }
    }

    /// Duplicates the descriptor, so that epoll can watch the other direction separately.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::NonBlocking(fd) => fd.try_clone().map(Self::NonBlocking),
            Self::Polled(fd) => fd.try_clone().map(Self::Polled),
            Self::ThreadedInput(_) | Self::ThreadedOutput(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(crate) fn read(&self, into: &mut [u8]) -> Transfer {
        match self {
            Self::NonBlocking(fd) => transfer(fd, || nix::unistd::read(fd, into)),
            Self::Polled(fd) if !is_readable(fd) => Transfer::Blocked,
            Self::Polled(fd) => transfer(fd, || nix::unistd::read(fd, into)),
            Self::ThreadedInput(reader) => reader.read(into),
            Self::ThreadedOutput(_) => Transfer::Ended,
        }
    }

    /// Waits at most `patience` for a write that a thread does. Returns whether it is worth trying again: not if the reader is slow.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        match self {
            Self::ThreadedOutput(writer) => writer.wait(patience),
            Self::NonBlocking(_) | Self::Polled(_) | Self::ThreadedInput(_) => false,
        }
    }

    /// Writes some of `from`. After `Blocked`, retry with the same bytes, to which more may be appended.
    pub(crate) fn write(&self, from: &[u8]) -> Transfer {
        match self {
            Self::NonBlocking(fd) => transfer(fd, || nix::unistd::write(fd, from)),
            Self::Polled(_) | Self::ThreadedInput(_) => Transfer::Ended,
            Self::ThreadedOutput(writer) => writer.write(from),
        }
    }
}

/// Opens the file of a stream again, in non-blocking mode.
fn open_again(stream: BorrowedFd<'_>, direction: Direction) -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(direction == Direction::In)
        .write(direction == Direction::Out)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(format!("/proc/self/fd/{}", stream.as_raw_fd()))?;
    Ok(file.into())
}

fn flags(fd: BorrowedFd<'_>) -> io::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?))
}

/// Whether it is a regular file or a block device, which block in any mode.
fn ignores_nonblocking_mode(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // File types are numbers, not bits: S_IFSOCK includes all bits of S_IFREG.
    let kind = SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT;
    Ok(kind == SFlag::S_IFREG || kind == SFlag::S_IFBLK)
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    // End of file and errors count as readable.
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

fn transfer(fd: &OwnedFd, mut once: impl FnMut() -> nix::Result<usize>) -> Transfer {
    loop {
        match once() {
            Err(Errno::EINTR) => {}
            result => return Transfer::from(end_of_terminal(fd, result)),
        }
    }
}

impl AsFd for HostFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::NonBlocking(fd) | Self::Polled(fd) => fd.as_fd(),
            Self::ThreadedInput(reader) => reader.as_fd(),
            Self::ThreadedOutput(writer) => writer.as_fd(),
        }
    }
}

impl AsRawFd for HostFd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};

    use super::*;

    #[test]
    fn standard_stream_of_a_file_goes_on_where_it_is() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abcdef").unwrap();
        file.seek(SeekFrom::Start(3)).unwrap();
        let fd = HostFd::standard(file.as_fd(), Direction::In).unwrap();
        fd.start().unwrap();
        let mut bytes = [0; 8];
        assert_eq!(wait_and_read(&fd, &mut bytes), Transfer::Moved(3));
        assert_eq!(&bytes[..3], b"def");
        assert_eq!(wait_and_read(&fd, &mut bytes), Transfer::Ended);
    }

    fn wait_and_read(fd: &HostFd, into: &mut [u8]) -> Transfer {
        assert_eq!(fd.read(into), Transfer::Blocked);
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
        fd.read(into)
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
    fn standard_stream_of_a_socket_leaves_the_shared_mode_alone() {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let fd = HostFd::standard(ours.as_fd(), Direction::In).unwrap();
        assert_eq!(fd.read(&mut [0]), Transfer::Blocked);
        theirs.write_all(b"a").unwrap();
        assert_eq!(fd.read(&mut [0; 8]), Transfer::Moved(1));
        assert!(!flags(ours.as_fd()).unwrap().contains(OFlag::O_NONBLOCK));
    }

    /// Output by a thread.
    fn by_thread(fd: OwnedFd) -> HostFd {
        let fd = HostFd::ThreadedOutput(FileWriter::new(fd).unwrap());
        fd.start().unwrap();
        fd
    }

    /// What happens to `bytes` when the gate has opened.
    fn written(fd: &HostFd, bytes: &[u8]) -> Transfer {
        assert_eq!(fd.write(bytes), Transfer::Blocked);
        poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)], 10_000_u16).unwrap();
        fd.write(bytes)
    }

    #[test]
    fn output_to_a_file_is_written_by_a_thread_where_the_file_stands() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let fd = HostFd::standard(file.as_fd(), Direction::Out).unwrap();
        fd.start().unwrap();
        assert_eq!(written(&fd, b"def"), Transfer::Moved(3));
        assert_eq!(written(&fd, b"ghi"), Transfer::Moved(3));
        let mut all = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut all).unwrap();
        assert_eq!(all, "abcdefghi");
    }

    #[test]
    fn output_whose_thread_has_stopped_goes_on_with_the_next_thread() {
        let (mut reader, writer) = io::pipe().unwrap();
        let fd = by_thread(writer.into());
        assert_eq!(written(&fd, b"abc"), Transfer::Moved(3));
        assert!(fd.stop());
        assert!(!fd.stop(), "there is no thread any more");
        assert_eq!(fd.write(b"def"), Transfer::Blocked);
        fd.start().unwrap();
        poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)], 10_000_u16).unwrap();
        assert_eq!(fd.write(b"def"), Transfer::Moved(3));
        drop(fd);
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        assert_eq!(all, "abcdef");
    }

    #[test]
    fn output_to_a_full_disk_fails_and_the_next_is_tried() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let fd = by_thread(full.into());
        assert_eq!(written(&fd, b"abc"), Transfer::Failed(Errno::ENOSPC));
        assert_eq!(written(&fd, b"abc"), Transfer::Failed(Errno::ENOSPC));
    }

    /// As on a failing disk: there is no memory at address 0.
    #[test]
    fn file_that_fails_has_not_ended() {
        let memory = std::fs::File::options().read(true).write(true).open("/proc/self/mem").unwrap();
        let output = HostFd::owned(memory.try_clone().unwrap().into()).unwrap();
        output.start().unwrap();
        assert_eq!(written(&output, b"abc"), Transfer::Failed(Errno::EIO));
        let input = HostFd::standard(memory.as_fd(), Direction::In).unwrap();
        input.start().unwrap();
        assert_eq!(wait_and_read(&input, &mut [0; 8]), Transfer::Failed(Errno::EIO));
    }

    #[test]
    fn terminal_that_has_hung_up_has_ended() {
        let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(None, None).unwrap();
        let polled = HostFd::Polled(slave.try_clone().unwrap());
        let written_by_a_thread = by_thread(slave.try_clone().unwrap());
        let own = HostFd::owned(slave).unwrap();
        drop(master);
        assert_eq!(own.write(b"abc"), Transfer::Ended);
        assert_eq!(polled.read(&mut [0; 8]), Transfer::Ended);
        assert_eq!(written(&written_by_a_thread, b"abc"), Transfer::Ended);
    }

    #[test]
    fn output_that_waits_blocks_the_thread_alone_and_goes_on_when_there_is_room() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        // As much as a pipe takes.
        writer.write_all(&[0; 64 << 10]).unwrap();
        let fd = by_thread(writer.into());
        assert_eq!(fd.write(b"abc"), Transfer::Blocked);
        assert_eq!(fd.write(b"abc"), Transfer::Blocked);
        let is_open =
            |fd: &HostFd, timeout: u16| poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)], timeout);
        assert_eq!(is_open(&fd, 0), Ok(0));
        reader.read_exact(&mut [0; 64 << 10]).unwrap();
        assert_eq!(is_open(&fd, 10_000), Ok(1));
        assert_eq!(fd.write(b"abcd"), Transfer::Moved(3), "of what was given first");
    }

    #[test]
    fn output_that_never_ends_does_not_keep_its_owner() {
        let (_reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[0; 64 << 10]).unwrap();
        let fd = by_thread(writer.into());
        assert_eq!(fd.write(b"abc"), Transfer::Blocked);
        let start = std::time::Instant::now();
        drop(fd);
        assert!(start.elapsed() < std::time::Duration::from_secs(10));
    }
}
