//! Eventfds, by which threads and the kernel wake each other.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, read, retry_on_intr, write};

/// An eventfd (eventfd(2)): a 64-bit counter with a file descriptor, which is readable while the counter isn't 0.
///
/// All eventfds of this workspace are non-blocking and close-on-exec. Poll the descriptor ([`AsFd`]) along with others, or let
/// [`wait`](Self::wait) block.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Creates an eventfd whose counter is 0.
    ///
    /// # Errors
    /// The host is out of file descriptors or memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    /// Another descriptor of the same counter.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Adds `count` to the counter.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): the counter would exceed 2^64 - 2. `count` is `u64::MAX`.
    pub fn write(&self, count: u64) -> io::Result<()> {
        retry_on_intr(|| write(&self.0, &count.to_ne_bytes()))?;
        Ok(())
    }

    /// Returns the counter and sets it to 0.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): the counter is 0.
    pub fn read(&self) -> io::Result<u64> {
        let mut count = [0; size_of::<u64>()];
        retry_on_intr(|| read(&self.0, &mut count))?;
        Ok(u64::from_ne_bytes(count))
    }

    /// As [`read`](Self::read), but blocks while the counter is 0. For a thread that has nothing else to wait for.
    ///
    /// # Errors
    /// The host is out of memory.
    pub fn wait(&self) -> io::Result<u64> {
        loop {
            match self.read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    #[test]
    fn eventfd_adds_what_is_written_and_is_0_after_a_read() {
        let event = EventFd::new().unwrap();
        event.write(2).unwrap();
        event.try_clone().unwrap().write(3).unwrap();
        assert_eq!(event.read().unwrap(), 5);
        assert_eq!(event.read().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn eventfd_is_non_blocking_and_close_on_exec() {
        let event = EventFd::new().unwrap();
        assert!(fcntl_getfl(&event).unwrap().contains(OFlags::NONBLOCK));
        assert!(fcntl_getfd(&event).unwrap().contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn eventfd_at_its_maximum_takes_no_more() {
        let event = EventFd::new().unwrap();
        event.write(u64::MAX - 1).unwrap();
        assert_eq!(event.write(1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn eventfd_wait_returns_what_another_thread_writes() {
        let event = EventFd::new().unwrap();
        let waited = thread::scope(|scope| {
            let waiting = scope.spawn(|| event.wait());
            event.write(7).unwrap();
            waiting.join().unwrap()
        });
        assert_eq!(waited.unwrap(), 7);
    }
}
