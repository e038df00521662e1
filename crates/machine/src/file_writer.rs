//! Blocking writes on a separate thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::event::{EventfdFlags, eventfd};

use crate::io_thread;
use crate::system_calls::WRITER_CALLS;
use crate::transfer::{Transfer, end_of_terminal};

/// Bytes written at a time.
const BATCH_LEN: usize = 64 << 10;
/// The thread's stack, in bytes: it only calls write(2).
const STACK_LEN: usize = 64 << 10;
/// Time limit for a write in progress when the writer is dropped. After that the thread is abandoned until the process exits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
const NO_PANIC: &str = "no panic while it is held";
/// The maximum count of an eventfd, at which it isn't writable (eventfd(2)).
const GATE_CLOSED: u64 = u64::MAX - 1;

/// Writes to a file on a thread, so that the caller never blocks: O_NONBLOCK has no effect on a regular file, and one on a slow
/// disk or an unreachable network file system blocks indefinitely. O_NONBLOCK must not be set either where other processes share
/// the open file, as with a socket at standard output.
///
/// ```text
///   write(bytes): Blocked --> the thread writes --> the gate opens (EPOLLOUT) --> write(bytes): Moved or Failed
/// ```
/// Without its thread it accepts a batch, which is written when the thread has started. If the host has no thread when it is to start,
/// callers write themselves until it has one: that may block, but what they write is most likely why the process ends.
#[derive(Debug)]
pub(crate) struct FileWriter {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    batch: Mutex<Batch>,
    /// `None` while the thread has it.
    sink: Mutex<Option<Sink>>,
    /// The state has changed.
    changed: Condvar,
    /// An eventfd that is writable unless the thread is writing.
    gate: OwnedFd,
}

#[derive(Debug, Default)]
struct Batch {
    state: State,
    bytes: Vec<u8>,
    /// The thread is to exit when it isn't writing.
    is_stopping: bool,
    /// The host had no thread.
    is_threadless: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    /// The thread is writing the bytes.
    Writing,
    /// The result: the number of bytes written, or an error.
    Written(Result<usize, Errno>),
    /// The writer is gone, and the thread is to exit.
    Quit,
}

/// The thread's blocking write function. Returns the number of bytes written, at least 1.
type Sink = Box<dyn FnMut(&[u8]) -> Result<usize, Errno> + Send>;

impl FileWriter {
    /// Writes to `fd` at its current position.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Self::with_sink(Box::new(move |bytes| write_waiting(&fd, bytes)))
    }

    /// Writes by calling `sink`.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(crate) fn with_sink(sink: Sink) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            batch: Mutex::new(Batch::default()),
            sink: Mutex::new(Some(sink)),
            changed: Condvar::new(),
            gate: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        });
        Ok(Self { shared, thread: Mutex::new(None) })
    }

    /// Starts the thread, unless it is there.
    ///
    /// # Errors
    /// The host is out of threads.
    pub(crate) fn start(&self) -> io::Result<()> {
        let mut thread = self.thread.lock().expect(NO_PANIC);
        if thread.is_none() {
            self.shared.batch().is_threadless = false;
            let theirs = Arc::clone(&self.shared);
            let spawned = io_thread::spawn("writer", STACK_LEN, WRITER_CALLS, move || theirs.run());
            *thread = Some(spawned.inspect_err(|_| self.shared.do_without_thread())?);
        }
        Ok(())
    }

    /// Waits for the write in progress and ends the thread, until the next [`start`](Self::start). Returns whether there was one.
    /// May block on the file.
    pub(crate) fn stop(&self) -> bool {
        let Some(thread) = self.thread.lock().expect(NO_PANIC).take() else { return false };
        self.shared.batch().is_stopping = true;
        self.shared.changed.notify_all();
        let _ = thread.join();
        self.shared.batch().is_stopping = false;
        true
    }

    /// Passes `bytes`, at least one, to the thread and returns `Blocked`. When the gate is open, call it again with the same
    /// bytes, to which more may be appended: it then returns the result.
    pub(crate) fn write(&self, bytes: &[u8]) -> Transfer {
        if let Some(outcome) = self.take_outcome() {
            return Transfer::from(outcome);
        }
        self.hand_over(bytes);
        Transfer::Blocked
    }

    /// Passes at most the first 64 KiB of `bytes` to the thread. `false` if it is busy, or its last result hasn't been taken.
    pub(crate) fn hand_over(&self, bytes: &[u8]) -> bool {
        let mut batch = self.shared.batch();
        if batch.state != State::Idle {
            return false;
        }
        batch.bytes.clear();
        batch.bytes.extend_from_slice(&bytes[..bytes.len().min(BATCH_LEN)]);
        batch.state = State::Writing;
        // Under the lock, so that the gate is closed exactly while the thread is writing.
        let _ = rustix::io::write(&self.shared.gate, &GATE_CLOSED.to_ne_bytes());
        let is_threadless = batch.is_threadless;
        drop(batch);
        match is_threadless {
            true => self.shared.do_without_thread(),
            false => self.shared.changed.notify_all(),
        }
        true
    }

    /// The result of the last write, once it is done.
    pub(crate) fn take_outcome(&self) -> Option<Result<usize, Errno>> {
        let mut batch = self.shared.batch();
        let State::Written(outcome) = batch.state else { return None };
        batch.state = State::Idle;
        Some(outcome)
    }

    /// Waits at most `patience` for the thread to finish its write. Returns whether it has.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let is_writing = |batch: &mut Batch| batch.state == State::Writing;
        let waited = self.shared.changed.wait_timeout_while(self.shared.batch(), patience, is_writing);
        waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }
}

impl Shared {
    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().expect(NO_PANIC)
    }

    /// What the thread would do now, and from now on whoever hands over a batch.
    fn do_without_thread(&self) {
        {
            let mut batch = self.batch();
            (batch.is_threadless, batch.is_stopping) = (true, true);
        }
        self.run();
        self.batch().is_stopping = false;
    }

    /// The thread's body.
    fn run(&self) {
        let sink = self.sink.lock().expect(NO_PANIC).take();
        if let Some(mut sink) = sink {
            self.work(&mut sink);
            *self.sink.lock().expect(NO_PANIC) = Some(sink);
        }
    }

    fn work(&self, sink: &mut Sink) {
        loop {
            let is_idle = |batch: &mut Batch| match batch.state {
                State::Writing | State::Quit => false,
                State::Idle | State::Written(_) => !batch.is_stopping,
            };
            let waited = self.changed.wait_while(self.batch(), is_idle);
            let mut batch = waited.expect(NO_PANIC);
            if batch.state != State::Writing {
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

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("batch", &self.batch).finish_non_exhaustive()
    }
}

/// A blocking write of some of `bytes`.
fn write_waiting(fd: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match nix::unistd::write(fd, bytes) {
            Err(Errno::EINTR) => {}
            // Another process that shares the open file has made it non-blocking.
            Err(Errno::EAGAIN) => {
                let _ = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            written => return end_of_terminal(fd, written),
        }
    }
}

/// The gate, to wait on with epoll.
impl AsFd for FileWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.gate.as_fd()
    }
}

impl AsRawFd for FileWriter {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.gate.as_raw_fd()
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        self.wait(PATIENCE);
        self.shared.batch().state = State::Quit;
        // Not joined: its write may never return.
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_without_a_thread_is_made_by_the_caller() {
        let (into, lines) =
            (Arc::new(Mutex::new(Vec::new())), |into: &Mutex<Vec<u8>>| into.lock().unwrap().clone());
        let theirs = Arc::clone(&into);
        let writer = FileWriter::with_sink(Box::new(move |bytes| {
            theirs.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }))
        .unwrap();
        assert_eq!(writer.write(b"before"), Transfer::Blocked);
        // As `start` does if the host has no thread.
        writer.shared.do_without_thread();
        assert_eq!(writer.write(b"before"), Transfer::Moved(6));
        assert_eq!(writer.write(b"after"), Transfer::Blocked);
        assert_eq!(lines(&into), b"beforeafter");
        assert_eq!(writer.write(b"after"), Transfer::Moved(5));
        assert!(writer.wait(Duration::ZERO));
        // There is one again.
        writer.start().unwrap();
        assert!(!writer.shared.batch().is_threadless);
        assert_eq!(writer.write(b"."), Transfer::Blocked);
        assert!(writer.wait(PATIENCE));
        assert_eq!(lines(&into), b"beforeafter.");
    }
}
