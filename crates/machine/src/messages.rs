//! What the monitor itself says, on its way to standard error, to standard output or into the log's file.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_bus::{Output, Overflow};

use crate::fd::{Direction, HostFd};
use crate::output_file::LogFile;
use crate::transfer::Transfer;

/// Bytes at which lines are lost. Twice what a trace fills before it holds the guest, so that a trace leaves room for the log.
const LIMIT: usize = 128 << 10;
/// Bytes written at once.
const CHUNK_LEN: usize = 4096;
/// Writes in a row before others get their turn.
const TURNS: usize = 16;

/// Lines in a bounded queue, and where they go. Clones are the same queue.
///
/// A line is written when it is said, if whoever reads is ready for it. Otherwise it waits, as do those that come after it, and
/// the event loop of a [`Supervisor`](crate::Supervisor) that has it [attached](crate::Supervisor::attach) writes them. Nothing here ever
/// waits for a reader, but [`flush`](Self::flush) for a while. A line that finds no room is lost; how many were is said
/// when there is room again.
///
/// Written on the thread that made it, or that has the event loop; lines may be said on every thread.
#[derive(Clone, Debug)]
pub struct Messages(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Arc<Output>,
    target: Target,
    /// Goes to the controlling terminal instead.
    to_terminal: AtomicBool,
    /// Opened for the first line. `None` if it can't be.
    fd: OnceLock<Option<HostFd>>,
    /// Nobody reads any more.
    is_gone: AtomicBool,
    /// Lines that found no room, and of which nothing was said yet.
    lost: AtomicU64,
    /// vCPUs were held by a trace, and there is room for it again.
    wake: AtomicBool,
    /// The id of the thread that writes.
    writer: AtomicI32,
}

#[derive(Debug)]
enum Target {
    Stderr,
    Stdout,
    File(LogFile),
}

/// What became of a turn of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// Nothing is left, or nobody reads.
    All,
    /// There is more.
    Some,
    /// Whoever reads isn't ready.
    Blocked,
}

impl Messages {
    /// To standard error.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub fn to_stderr() -> io::Result<Self> {
        Self::new(Target::Stderr)
    }

    /// To standard output.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub fn to_stdout() -> io::Result<Self> {
        Self::new(Target::Stdout)
    }

    /// To the end of a log file, which is made, for its user alone, if it isn't there. Others may log there too. To be called when
    /// the [`Inputs`](crate::Inputs) of a machine are open: only then it is known that the file is none of them.
    ///
    /// # Errors
    /// The file can't be opened, or is in use as something else, such as another machine's disk. The host is out of descriptors.
    pub fn to_log(path: &Path) -> io::Result<Self> {
        // A file that is made last isn't left behind.
        let queue = Output::new()?;
        Ok(Self::with(queue, Target::File(LogFile::open(path)?)))
    }

    /// Removes a log file that was made for this and has nothing in it: for a start that is refused. Nothing may be said after
    /// that.
    pub fn remove_unused_log(&self) {
        if let Target::File(log) = &self.0.target
            && self.is_drained()
        {
            log.remove_if_unused();
        }
    }

    fn new(target: Target) -> io::Result<Self> {
        Ok(Self::with(Output::new()?, target))
    }

    fn with(queue: Output, target: Target) -> Self {
        Self(Arc::new(Shared {
            queue: Arc::new(queue),
            target,
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

    /// Is written on this thread from now on.
    pub(crate) fn belong_to_this_thread(&self) {
        self.0.writer.store(this_thread(), Ordering::Relaxed);
    }

    fn is_of_this_thread(&self) -> bool {
        self.0.writer.load(Ordering::Relaxed) == this_thread()
    }

    /// From now on goes to the controlling terminal, or to nowhere if there is none: its target is a file that mustn't be written.
    /// To be called before anything is said.
    pub fn divert_to_terminal(&self) {
        self.0.to_terminal.store(true, Ordering::Relaxed);
    }

    /// Whether it [was diverted](Self::divert_to_terminal).
    pub fn is_diverted(&self) -> bool {
        self.0.to_terminal.load(Ordering::Relaxed)
    }

    /// Says `line`, which has its line end, or some lines that belong together. If the log or a trace has left no room, it is
    /// lost and counted.
    pub fn say(&self, line: &[u8]) {
        if self.0.is_gone.load(Ordering::Relaxed) {
            return;
        }
        self.say_lost();
        if !self.0.queue.push_within(LIMIT, line) {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        // Of another thread's lines the event loop hears.
        if self.is_of_this_thread() {
            self.pump();
        }
    }

    /// As [`say`](Self::say), but there is always room: for the few last words of a monitor.
    pub fn report(&self, text: &[u8]) {
        if !self.0.is_gone.load(Ordering::Relaxed) {
            self.say_lost();
            self.0.queue.push(text);
            if self.is_of_this_thread() {
                self.pump();
            }
        }
    }

    /// Gives whoever reads this time, at most, to take what is left.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        loop {
            match self.pump() {
                Pumped::All => {
                    self.say_lost();
                    if self.is_drained() {
                        return;
                    }
                }
                Pumped::Some => {}
                Pumped::Blocked => {
                    let Some(fd) = self.fd() else { return };
                    let left = until.saturating_duration_since(Instant::now());
                    // Rounded up: the last millisecond is waited for too.
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

    /// Whether all lines are written, or nobody wants them.
    pub(crate) fn is_drained(&self) -> bool {
        self.0.is_gone.load(Ordering::Relaxed) || self.0.queue.is_drained()
    }

    /// The queue, for lines of a trace.
    pub(crate) fn queue(&self) -> &Arc<Output> {
        &self.0.queue
    }

    /// What can be written when there was no room.
    pub(crate) fn fd(&self) -> Option<&HostFd> {
        self.0.fd.get_or_init(|| self.open().ok()).as_ref()
    }

    /// Whether a line was ever written, and there was something to write it to.
    pub(crate) fn is_open(&self) -> bool {
        self.0.fd.get().is_some_and(Option::is_some)
    }

    /// Whether vCPUs that a trace held are to be woken; once.
    pub(crate) fn take_wake(&self) -> bool {
        self.0.wake.swap(false, Ordering::Relaxed)
    }

    fn open(&self) -> io::Result<HostFd> {
        if self.is_diverted() {
            let terminal = File::options().write(true).custom_flags(libc::O_NOCTTY).open("/dev/tty")?;
            return HostFd::owned(terminal.into());
        }
        match &self.0.target {
            Target::Stderr => HostFd::standard(io::stderr().as_fd(), Direction::Out),
            Target::Stdout => HostFd::standard(io::stdout().as_fd(), Direction::Out),
            Target::File(log) => HostFd::owned(log.file().try_clone()?.into()),
        }
    }

    fn say_lost(&self) {
        let lost = self.0.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let plural = if lost == 1 { " was" } else { "s were" };
            let text = format!("{lost} line{plural} lost: they came faster than they were read\n");
            if !self.0.queue.push_within(LIMIT, text.as_bytes()) {
                self.0.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
    }

    /// Writes as much as goes, in a bounded number of turns.
    pub(crate) fn pump(&self) -> Pumped {
        let mut chunk = [0; CHUNK_LEN];
        for _ in 0..TURNS {
            let len = self.0.queue.peek(&mut chunk);
            if len == 0 || self.0.is_gone.load(Ordering::Relaxed) {
                return Pumped::All;
            }
            match self.fd().map_or(Transfer::Ended, |fd| fd.write(&chunk[..len])) {
                Transfer::Moved(len) => self.discard(len),
                Transfer::Blocked => return Pumped::Blocked,
                // A full disk may have room for the next ones. There is no place left to complain at.
                Transfer::Failed(_) => self.discard(len),
                Transfer::Ended => self.give_up(),
            }
        }
        Pumped::Some
    }

    fn discard(&self, len: usize) {
        if self.0.queue.discard(len).wake {
            self.wake();
        }
    }

    /// A guest that is traced goes on unseen.
    fn give_up(&self) {
        self.0.is_gone.store(true, Ordering::Relaxed);
        if self.0.queue.set_overflow(Overflow::DropOldest) {
            self.wake();
        }
    }

    /// The event loop wakes the vCPUs, whoever has made the room.
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
        messages.say(b"one\n");
        assert!(messages.is_drained());
        assert_eq!(read(&mut reader, 4), "one\n");
    }

    #[test]
    fn lines_that_nobody_reads_are_bounded_whole_and_counted() {
        let (mut reader, messages) = into_pipe();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        // 4 in the pipe, 128 in the queue, 3 lost.
        (0..4 + 128 + 3).for_each(|_| messages.say(&line));
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
        messages.say(&[b'x'; 5000]);
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
        assert_eq!(messages.pump(), Pumped::Blocked);
        assert!(!messages.take_wake());
        drop(reader);
        assert_eq!(messages.pump(), Pumped::All);
        assert!(messages.take_wake() && messages.is_drained());
    }
}
