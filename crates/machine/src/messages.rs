//! The monitor's own output: the log, traces and announcements, to standard error, standard output or the log file.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_bus::{Output, Overflow};

use crate::fd::{Direction, HostFd};
use crate::output_file::LogFile;
use crate::transfer::Transfer;

/// Queued bytes above which lines are dropped. Twice the 64 KiB at which a trace holds the guest, so that a trace leaves room
/// for the log.
const LIMIT: usize = 128 << 10;
/// Bytes for one write(2).
const CHUNK_LEN: usize = 4096;
const NO_PANIC: &str = "no panic while it is held";
/// Writes in a row before the event loop serves other sources.
const TURNS: usize = 16;

/// A bounded queue of lines, and its target. Clones share the queue.
///
/// A line is written at once if the target accepts it. Otherwise it stays queued, in order, and is written by the event loop of
/// the [`Supervisor`](crate::Supervisor) that it is [attached](crate::Supervisor::attach) to. Only [`flush`](Self::flush) waits
/// for the reader. A line for which there is no room is dropped; a line with the count of dropped lines follows when there is
/// room again.
///
/// Any thread may push lines. They are written by the thread that created the queue, or by that of the event loop.
#[derive(Clone, Debug)]
pub struct Messages(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Arc<Output>,
    /// The file of a log.
    log: Option<LogFile>,
    /// Where lines go, until the first one; `None` if it can't be opened. Examined when the queue is created, since that may block
    /// on slow storage, and lines may not.
    end: Mutex<Option<Arc<HostFd>>>,
    /// Lines go to the controlling terminal instead of `end`.
    to_terminal: AtomicBool,
    /// Opened for the first line; `None` if that failed.
    fd: OnceLock<Option<Arc<HostFd>>>,
    /// The reader has closed the target.
    is_gone: AtomicBool,
    /// Dropped lines that haven't been reported yet.
    lost: AtomicU64,
    /// There is room again after a trace has held vCPUs: they must be woken.
    wake: AtomicBool,
    /// The id of the writing thread.
    writer: AtomicI32,
}

/// The result of [`Messages::pump`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PumpResult {
    /// The queue is empty, or the reader has gone.
    All,
    /// More lines are queued.
    Some,
    /// The target isn't writable now.
    Blocked,
}

impl Messages {
    /// Lines for standard error. May block on the storage of a regular file there, for which it starts a thread.
    ///
    /// # Errors
    /// The host is out of descriptors or threads.
    pub fn to_stderr() -> io::Result<Self> {
        let end = HostFd::standard(io::stderr().as_fd(), Direction::Out).ok();
        // With its thread: when the machine ends the host may be out of threads, and the error of that end would be lost.
        end.as_ref().map_or(Ok(()), HostFd::start)?;
        Ok(Self::new(Output::new()?, end, None))
    }

    /// Lines for standard output. May block on the storage of a regular file there.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub fn to_stdout() -> io::Result<Self> {
        let end = HostFd::standard(io::stdout().as_fd(), Direction::Out).ok();
        Ok(Self::new(Output::new()?, end, None))
    }

    /// Lines appended to a log file, which is created with mode 0600 if it is missing. Other monitors may append to it too.
    /// Call it after the [`Inputs`](crate::Inputs) are open: only then is it certain that the file isn't one of them.
    ///
    /// # Errors
    /// The file can't be opened, or is in use as something else, such as another machine's disk. The host is out of descriptors or
    /// threads.
    pub fn to_log(path: &Path) -> io::Result<Self> {
        // First, so that no new file is left behind if it fails.
        let queue = Output::new()?;
        let log = LogFile::open(path)?;
        let end = log.file().try_clone().and_then(|file| HostFd::owned(file.into()));
        match end.and_then(|end| end.start().map(|()| end)) {
            Ok(end) => Ok(Self::new(queue, Some(end), Some(log))),
            Err(error) => {
                log.remove_if_unused();
                Err(error)
            }
        }
    }

    /// Removes the log file if this queue created it and it is still empty: for a start that is refused. Nothing may be pushed
    /// after that.
    pub fn remove_unused_log(&self) {
        if let Some(log) = &self.0.log
            && self.is_drained()
        {
            log.remove_if_unused();
        }
    }

    /// The new log file that is removed if the start is refused.
    pub(crate) fn removes(&self) -> Option<PathBuf> {
        self.0.log.as_ref().and_then(LogFile::removes)
    }

    fn new(queue: Output, end: Option<HostFd>, log: Option<LogFile>) -> Self {
        Self(Arc::new(Shared {
            queue: Arc::new(queue),
            log,
            end: Mutex::new(end.map(Arc::new)),
            to_terminal: AtomicBool::new(false),
            fd: OnceLock::new(),
            is_gone: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            wake: AtomicBool::new(false),
            writer: AtomicI32::new(this_thread()),
        }))
    }

    /// Whether both are the same queue.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Makes the calling thread the writer.
    pub(crate) fn belong_to_this_thread(&self) {
        self.0.writer.store(this_thread(), Ordering::Relaxed);
    }

    fn is_of_this_thread(&self) -> bool {
        self.0.writer.load(Ordering::Relaxed) == this_thread()
    }

    /// Sends all lines to the controlling terminal, or drops them if there is none: for a target that mustn't be written. Call it
    /// before the first line.
    pub fn divert_to_terminal(&self) {
        self.0.to_terminal.store(true, Ordering::Relaxed);
    }

    /// Whether [`divert_to_terminal`](Self::divert_to_terminal) was called.
    pub fn is_diverted(&self) -> bool {
        self.0.to_terminal.load(Ordering::Relaxed)
    }

    /// Queues one or more lines, each with its line end. If there is no room they are dropped together and counted as one.
    pub fn push(&self, line: &[u8]) {
        if self.0.is_gone.load(Ordering::Relaxed) {
            return;
        }
        self.push_lost_count();
        if !self.0.queue.push_within(LIMIT, line) {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        // For other threads the event loop does it: the push has written the queue's eventfd.
        if self.is_of_this_thread() {
            self.pump();
        }
    }

    /// As [`push`](Self::push), but without the limit: for the few last lines of a monitor.
    pub fn push_unbounded(&self, text: &[u8]) {
        if !self.0.is_gone.load(Ordering::Relaxed) {
            self.push_lost_count();
            self.0.queue.push(text);
            if self.is_of_this_thread() {
                self.pump();
            }
        }
    }

    /// Writes what is queued, waiting at most `patience` for the reader.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        loop {
            match self.pump() {
                PumpResult::All => {
                    self.push_lost_count();
                    if self.is_drained() {
                        return;
                    }
                }
                PumpResult::Some => {}
                PumpResult::Blocked => {
                    let Some(fd) = self.fd() else { return };
                    let left = until.saturating_duration_since(Instant::now());
                    // poll(2) takes whole milliseconds: rounded up.
                    let left = PollTimeout::try_from(left + Duration::from_millis(1));
                    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
                    let _ = poll(&mut fds, left.unwrap_or(PollTimeout::MAX));
                }
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    /// Whether all lines have been written, or the reader has gone.
    pub(crate) fn is_drained(&self) -> bool {
        self.0.is_gone.load(Ordering::Relaxed) || self.0.queue.is_drained()
    }

    /// The queue, for trace lines.
    pub(crate) fn queue(&self) -> &Arc<Output> {
        &self.0.queue
    }

    /// The target's descriptor, to wait on with epoll. Opens it on first use; `None` if that failed.
    pub(crate) fn fd(&self) -> Option<&HostFd> {
        self.0.fd.get_or_init(|| self.open().ok()).as_deref()
    }

    /// Whether the target has been opened.
    pub(crate) fn is_open(&self) -> bool {
        self.0.fd.get().is_some_and(Option::is_some)
    }

    /// Whether held vCPUs must be woken. Resets the flag.
    pub(crate) fn take_wake(&self) -> bool {
        self.0.wake.swap(false, Ordering::Relaxed)
    }

    fn open(&self) -> io::Result<Arc<HostFd>> {
        if self.is_diverted() {
            let terminal = File::options().write(true).custom_flags(libc::O_NOCTTY).open("/dev/tty")?;
            return HostFd::owned(terminal.into()).map(Arc::new);
        }
        let end = self.0.end.lock().expect(NO_PANIC).take();
        let end = end.ok_or(io::ErrorKind::NotFound)?;
        // Without a thread, lines for a regular file are written by whoever pumps them: they may say why there is none.
        let _ = end.start();
        Ok(end)
    }

    /// Ends the thread that writes a regular file, after its write in progress. Lines are queued until the target that is returned
    /// is started again. `None` if there is no thread. May block on the file.
    pub(crate) fn stop(&self) -> Option<Arc<HostFd>> {
        if self.is_diverted() {
            // Now, because a confined process can't open the terminal.
            self.fd();
        }
        self.target().filter(|target| target.stop())
    }

    /// The target, whether it is in use already or not.
    fn target(&self) -> Option<Arc<HostFd>> {
        self.0.fd.get().cloned().unwrap_or_else(|| self.0.end.lock().expect(NO_PANIC).clone())
    }

    fn push_lost_count(&self) {
        let lost = self.0.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let plural = if lost == 1 { " was" } else { "s were" };
            let text = format!("{lost} line{plural} lost: they came faster than they were read\n");
            if !self.0.queue.push_within(LIMIT, text.as_bytes()) {
                self.0.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
    }

    /// Writes what the target accepts, in at most [`TURNS`] writes.
    pub(crate) fn pump(&self) -> PumpResult {
        let mut chunk = [0; CHUNK_LEN];
        for _ in 0..TURNS {
            let len = self.0.queue.peek(&mut chunk);
            if len == 0 || self.0.is_gone.load(Ordering::Relaxed) {
                return PumpResult::All;
            }
            match self.fd().map_or(Transfer::Ended, |fd| fd.write(&chunk[..len])) {
                Transfer::Moved(len) => self.discard(len),
                Transfer::Blocked => return PumpResult::Blocked,
                // A full disk may have room for later lines. There is nowhere to report the error.
                Transfer::Failed(_) => self.discard(len),
                Transfer::Ended => self.give_up(),
            }
        }
        PumpResult::Some
    }

    fn discard(&self, len: usize) {
        if self.0.queue.discard(len).wake {
            self.wake();
        }
    }

    /// The reader has gone: a traced guest goes on, its lines are dropped.
    fn give_up(&self) {
        self.0.is_gone.store(true, Ordering::Relaxed);
        if self.0.queue.set_overflow(Overflow::DropOldest) {
            self.wake();
        }
    }

    /// Has the event loop wake the vCPUs: this may run on another thread.
    fn wake(&self) {
        self.0.wake.store(true, Ordering::Relaxed);
        // Can't be full: the counter would have to reach 2^64 - 1.
        let _ = self.0.queue.ready().write(1);
    }
}

fn this_thread() -> i32 {
    nix::unistd::gettid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::thread;

    use nix::fcntl::{FcntlArg, fcntl};

    use super::*;

    /// A pipe of one page, and messages into it.
    fn into_pipe() -> (io::PipeReader, Messages) {
        let (reader, writer) = io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        (reader, Messages::to_log(path.as_ref()).unwrap())
    }

    fn read(reader: &mut io::PipeReader, len: usize) -> String {
        let mut bytes = vec![0; len];
        reader.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn line_is_written_at_once_if_its_reader_is_ready() {
        let (mut reader, messages) = into_pipe();
        messages.push(b"one\n");
        assert!(messages.is_drained());
        assert_eq!(read(&mut reader, 4), "one\n");
    }

    #[test]
    fn lines_that_nobody_reads_are_bounded_whole_and_counted() {
        let (mut reader, messages) = into_pipe();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        // 4 in the pipe, 128 in the queue, 3 lost.
        (0..4 + 128 + 3).for_each(|_| messages.push(&line));
        let drain = thread::spawn(move || {
            let mut all = String::new();
            reader.read_to_string(&mut all).unwrap();
            all
        });
        messages.flush(Duration::from_secs(10));
        drop(messages);
        let all = drain.join().unwrap();
        assert_eq!(all.lines().filter(|line| line.len() == 1023).count(), 132);
        assert_eq!(all.lines().last(), Some("3 lines were lost: they came faster than they were read"));
        assert_eq!(all.lines().count(), 133);
    }

    #[test]
    fn flush_of_what_nobody_reads_ends_in_time() {
        let (_reader, messages) = into_pipe();
        messages.push(&[b'x'; 5000]);
        let start = Instant::now();
        messages.flush(Duration::from_millis(20));
        assert!((20..10_000).contains(&start.elapsed().as_millis()));
        assert!(!messages.is_drained());
    }

    #[test]
    fn reader_that_goes_away_wakes_a_guest_that_a_trace_held() {
        let (reader, messages) = into_pipe();
        messages.queue().push(&[b'x'; 64 << 10]);
        assert_eq!(messages.queue().outcome(), vmm_bus::Outcome::Hold);
        assert_eq!(messages.pump(), PumpResult::Blocked);
        assert!(!messages.take_wake());
        drop(reader);
        assert_eq!(messages.pump(), PumpResult::All);
        assert!(messages.take_wake() && messages.is_drained());
    }
}
