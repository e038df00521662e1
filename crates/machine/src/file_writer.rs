//! Writes that may wait, on a thread of their own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::event::{EventfdFlags, eventfd};

use crate::io_thread;
use crate::transfer::Transfer;

/// Bytes taken at once.
const BATCH_LEN: usize = 64 << 10;
/// Of the thread, in bytes: it calls write(2) and nothing else.
const STACK_LEN: usize = 64 << 10;
/// Time that what is under way has when its owner lets go of it. What takes longer ends with the process.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// The most that an eventfd counts: with it, the eventfd can't be written.
const GATE_CLOSED: u64 = u64::MAX - 1;

/// Writes to a file without ever waiting for it: O_NONBLOCK means nothing to a regular file, and one on a slow disk or on a
/// network that is down blocks for as long as that takes. Nor may O_NONBLOCK be set where other processes share the open
/// file, as with a socket at standard output. A thread does the waiting.
///
/// ```text
///   write(bytes): Blocked --> the thread writes --> the gate opens (EPOLLOUT) --> write(bytes): Moved or Failed
/// ```
#[derive(Debug)]
pub(crate) struct FileWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    batch: Mutex<Batch>,
    /// The batch's state has changed.
    changed: Condvar,
    /// Can be written, which epoll tells, unless the thread is at work.
    gate: OwnedFd,
}

#[derive(Debug)]
struct Batch {
    state: State,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// The bytes are the thread's.
    Writing,
    /// So many were written, or none for this reason.
    Written(Result<usize, Errno>),
    /// Nobody has more.
    Quit,
}

/// What the thread writes to. It returns how many bytes were written, at least 1, and may wait.
type Sink = Box<dyn FnMut(&[u8]) -> Result<usize, Errno> + Send>;

impl FileWriter {
    /// Writes to `fd` where it stands.
    ///
    /// # Errors
    /// The host is out of descriptors or threads.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Self::with_sink(Box::new(move |bytes| write_waiting(&fd, bytes)))
    }

    /// Writes by `sink`.
    pub(crate) fn with_sink(sink: Sink) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            batch: Mutex::new(Batch { state: State::Idle, bytes: Vec::new() }),
            changed: Condvar::new(),
            gate: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        });
        let theirs = Arc::clone(&shared);
        io_thread::spawn("writer", STACK_LEN, move || theirs.work(sink))?;
        Ok(Self(shared))
    }

    /// Gives the thread the first of `bytes`, of which there is at least one, and says `Blocked`; called with the same bytes,
    /// and perhaps more after them, when the gate is open, says what became of them.
    pub(crate) fn write(&self, bytes: &[u8]) -> Transfer {
        if let Some(outcome) = self.take_outcome() {
            return Transfer::from(outcome);
        }
        self.hand_over(bytes);
        Transfer::Blocked
    }

    /// Gives the thread the first of `bytes`, 64 KiB at most. `false` if it has others, or their outcome wasn't taken yet.
    pub(crate) fn hand_over(&self, bytes: &[u8]) -> bool {
        let mut batch = self.0.batch();
        if batch.state != State::Idle {
            return false;
        }
        batch.bytes.clear();
        batch.bytes.extend_from_slice(&bytes[..bytes.len().min(BATCH_LEN)]);
        batch.state = State::Writing;
        // Under the lock, so that the gate is closed exactly while the thread is at work.
        let _ = rustix::io::write(&self.0.gate, &GATE_CLOSED.to_ne_bytes());
        drop(batch);
        self.0.changed.notify_all();
        true
    }

    /// What became of what the thread was given, if it is done.
    pub(crate) fn take_outcome(&self) -> Option<Result<usize, Errno>> {
        let mut batch = self.0.batch();
        let State::Written(outcome) = batch.state else { return None };
        batch.state = State::Idle;
        Some(outcome)
    }

    /// Waits until the thread is done with what it has, for this time at most; whether it is.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let is_writing = |batch: &mut Batch| batch.state == State::Writing;
        let waited = self.0.changed.wait_timeout_while(self.0.batch(), patience, is_writing);
        waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }
}

impl Shared {
    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().expect("no panic while it is held")
    }

    /// The thread.
    fn work(&self, mut sink: Sink) {
        loop {
            let is_idle = |batch: &mut Batch| !matches!(batch.state, State::Writing | State::Quit);
            let waited = self.changed.wait_while(self.batch(), is_idle);
            let mut batch = waited.expect("no panic while it is held");
            if batch.state == State::Quit {
                return;
            }
            let bytes = std::mem::take(&mut batch.bytes);
            drop(batch);
            let result = sink(&bytes);
            let mut batch = self.batch();
            batch.bytes = bytes;
            if batch.state == State::Writing {
                batch.state = State::Written(result);
            }
            let _ = rustix::io::read(&self.gate, &mut [0; 8]);
            drop(batch);
            self.changed.notify_all();
        }
    }
}

/// Writes some of `bytes`, however long that takes.
fn write_waiting(fd: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match nix::unistd::write(fd, bytes) {
            Err(Errno::EINTR) => {}
            // Somebody who shares the open file has made it non-blocking.
            Err(Errno::EAGAIN) => {
                let _ = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            written => return written,
        }
    }
}

/// The gate, to wait for.
impl AsFd for FileWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.gate.as_fd()
    }
}

impl AsRawFd for FileWriter {
    fn as_raw_fd(&self) -> RawFd {
        self.0.gate.as_raw_fd()
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        self.wait(PATIENCE);
        self.0.batch().state = State::Quit;
        // Not joined: it may be in a write that never ends.
        self.0.changed.notify_all();
    }
}
