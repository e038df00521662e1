//! Blocking reads on a separate thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use nix::errno::Errno;
use rustix::event::{EventfdFlags, eventfd};

use crate::io_thread;
use crate::transfer::{Transfer, end_of_terminal};

/// The thread's stack, in bytes: it only calls read(2).
const STACK_LEN: usize = 64 << 10;

/// Reads a file on a thread, so that the caller never blocks: O_NONBLOCK has no effect on a regular file, and one on an
/// unreachable network file system blocks indefinitely. The thread reads only what was requested, since others may share the
/// open file and its position.
///
/// ```text
///   read: Blocked --> the thread reads --> the gate opens (EPOLLIN) --> read: Moved, Ended or Failed
/// ```
///
/// Without its thread it accepts a request, which is carried out when the thread has started.
pub(crate) struct FileReader {
    shared: Arc<Shared>,
    /// The thread's, until it starts.
    origin: Mutex<Option<Origin>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The state has changed.
    changed: Condvar,
    /// An eventfd that is readable while there is a result to take.
    gate: OwnedFd,
}

#[derive(Debug)]
enum State {
    Idle,
    /// The thread is to read at most this many bytes.
    Wanted(usize),
    /// The result: the bytes read, of which none means end of file, or an error.
    Read(Result<Vec<u8>, Errno>),
    /// The thread is to exit.
    Quit,
}

/// The thread's blocking read function.
type Origin = Box<dyn FnMut(&mut [u8]) -> Result<usize, Errno> + Send>;

impl FileReader {
    /// Reads `fd` from its current position.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Self::with_origin(Box::new(move |into| {
            loop {
                match nix::unistd::read(&fd, into) {
                    Err(Errno::EINTR) => {}
                    result => return end_of_terminal(&fd, result),
                }
            }
        }))
    }

    fn with_origin(origin: Origin) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::Idle),
            changed: Condvar::new(),
            gate: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        });
        Ok(Self { shared, origin: Mutex::new(Some(origin)) })
    }

    /// Starts the thread, unless it is there.
    ///
    /// # Errors
    /// The host is out of threads.
    pub(crate) fn start(&self) -> io::Result<()> {
        let origin = self.origin.lock().expect("no panic while it is held").take();
        let Some(origin) = origin else { return Ok(()) };
        let theirs = Arc::clone(&self.shared);
        io_thread::spawn("reader", STACK_LEN, &[], move || theirs.work(origin)).map(drop)
    }

    /// Moves what the thread has read to `into`. If there is nothing, has the thread read at most `into.len()` bytes.
    pub(crate) fn read(&self, into: &mut [u8]) -> Transfer {
        let mut state = self.shared.state();
        match &mut *state {
            State::Idle => {
                *state = State::Wanted(into.len());
                drop(state);
                self.shared.changed.notify_all();
                Transfer::Blocked
            }
            State::Wanted(_) => Transfer::Blocked,
            State::Read(Ok(bytes)) if !bytes.is_empty() => {
                let len = bytes.len().min(into.len());
                into[..len].copy_from_slice(&bytes[..len]);
                bytes.drain(..len);
                if bytes.is_empty() {
                    self.shared.set_idle(&mut state);
                }
                Transfer::Moved(len)
            }
            State::Read(Err(errno)) => {
                let errno = *errno;
                self.shared.set_idle(&mut state);
                Transfer::from(Err(errno))
            }
            State::Read(Ok(_)) | State::Quit => Transfer::Ended,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }

    /// The result has been taken: resets the state and the gate.
    fn set_idle(&self, state: &mut State) {
        *state = State::Idle;
        let _ = rustix::io::read(&self.gate, &mut [0; 8]);
    }

    /// The thread's loop.
    fn work(&self, mut origin: Origin) {
        loop {
            let is_waiting = |state: &mut State| !matches!(state, State::Wanted(_) | State::Quit);
            let waited = self.changed.wait_while(self.state(), is_waiting);
            let state = waited.expect("no panic while it is held");
            let State::Wanted(len) = *state else { return };
            drop(state);
            let mut bytes = vec![0; len];
            let read = origin(&mut bytes).map(|len| {
                bytes.truncate(len);
                bytes
            });
            let mut state = self.state();
            if matches!(*state, State::Quit) {
                return;
            }
            *state = State::Read(read);
            // Under the lock, so that the gate is open exactly while there is a result to take.
            let _ = rustix::io::write(&self.gate, &1_u64.to_ne_bytes());
        }
    }
}

impl Drop for FileReader {
    /// The thread isn't joined: a read that never returns ends with the process.
    fn drop(&mut self) {
        *self.shared.state() = State::Quit;
        self.shared.changed.notify_all();
    }
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl AsFd for FileReader {
    /// The gate, to wait on with epoll.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.gate.as_fd()
    }
}

impl AsRawFd for FileReader {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.gate.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn is_open(reader: &FileReader, timeout: PollTimeout) -> bool {
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, timeout).unwrap() == 1
    }

    /// Waits for the gate.
    fn wait(reader: &FileReader) {
        assert!(is_open(reader, PollTimeout::from(10_000_u16)));
    }

    #[test]
    fn read_that_hangs_blocks_nobody_and_its_bytes_come_later() {
        let (give, given) = channel::<Vec<u8>>();
        let origin = move |into: &mut [u8]| {
            let bytes = given.recv().unwrap_or_default();
            into[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        };
        let reader = FileReader::with_origin(Box::new(origin)).unwrap();
        reader.start().unwrap();
        let mut into = [0; 4];
        assert_eq!(reader.read(&mut into), Transfer::Blocked);
        assert_eq!(reader.read(&mut into), Transfer::Blocked);
        assert!(!is_open(&reader, PollTimeout::ZERO));
        give.send(b"abc".to_vec()).unwrap();
        wait(&reader);
        // With less room than was requested.
        assert_eq!(reader.read(&mut into[..2]), Transfer::Moved(2));
        assert!(is_open(&reader, PollTimeout::ZERO), "there is more");
        assert_eq!(reader.read(&mut into[2..]), Transfer::Moved(1));
        assert_eq!(&into, b"abc\0");
        assert!(!is_open(&reader, PollTimeout::ZERO));
        assert_eq!(reader.read(&mut into), Transfer::Blocked);
        drop(give);
        wait(&reader);
        assert_eq!(reader.read(&mut into), Transfer::Ended);
        assert_eq!(reader.read(&mut into), Transfer::Ended);
    }

    #[test]
    fn read_asks_for_no_more_than_there_is_room() {
        let (ask, asked) = channel();
        let origin = move |into: &mut [u8]| {
            ask.send(into.len()).unwrap();
            Ok(into.len())
        };
        let reader = FileReader::with_origin(Box::new(origin)).unwrap();
        reader.start().unwrap();
        assert_eq!(reader.read(&mut [0; 7]), Transfer::Blocked);
        wait(&reader);
        assert_eq!(reader.read(&mut [0; 64]), Transfer::Moved(7));
        assert_eq!(asked.try_iter().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn read_that_fails_says_so_once() {
        let mut errors = vec![Err(Errno::EINVAL)].into_iter();
        let origin = move |_: &mut [u8]| errors.next().unwrap_or(Ok(0));
        let reader = FileReader::with_origin(Box::new(origin)).unwrap();
        reader.start().unwrap();
        assert_eq!(reader.read(&mut [0; 7]), Transfer::Blocked);
        wait(&reader);
        assert_eq!(reader.read(&mut [0; 7]), Transfer::Failed(Errno::EINVAL));
        assert_eq!(reader.read(&mut [0; 7]), Transfer::Blocked);
        wait(&reader);
        assert_eq!(reader.read(&mut [0; 7]), Transfer::Ended);
    }
}
