//! The running monitor.

use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::Termios;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::ends::{Ends, pid};
use crate::fd::wait_ready;
use crate::process;
use crate::terminal::Terminal;
use crate::transcript::{ProgramState, Transcript, find};

/// The running program. Every wait panics with the whole transcript at its deadline. Dropping it kills the
/// program.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    /// Waits for the program's exit, without reaping it.
    listener: Option<JoinHandle<()>>,
    transcript: Arc<Transcript>,
    /// How much of standard output earlier expectations have consumed.
    seen: usize,
    input: Option<OwnedFd>,
    held: Option<PipeReader>,
    first_modes: Option<Termios>,
    modes: Arc<Mutex<Modes>>,
}

/// The terminal modes of the program's terminal.
#[derive(Debug, Default)]
struct Modes {
    /// Only while the program runs, because it would keep the terminal's output open afterwards.
    terminal: Option<Terminal>,
    /// The modes at the program's exit.
    last: Option<Termios>,
}

impl Monitor {
    pub(crate) fn new(child: Child, mut ends: Ends, terminal: Option<Terminal>) -> Self {
        let transcript = Arc::new(Transcript::default());
        let stderr = ends.stderr.take().expect("standard error is always captured");
        transcript.follow(stderr.into(), |state| &mut state.stderr);
        let clone = |fd: &OwnedFd| fd.try_clone().expect("a descriptor");
        match (ends.captured, &terminal) {
            (Some(stdout), _) => transcript.follow(stdout.into(), |state| &mut state.stdout),
            (None, Some(terminal)) => transcript.follow(clone(&terminal.master), |state| &mut state.stdout),
            (None, None) => transcript.note(|state| state.stdout.ended = true),
        }
        let input = ends.input.or_else(|| terminal.as_ref().map(|terminal| clone(&terminal.master)));
        let first_modes = terminal.as_ref().map(|terminal| terminal.first_modes.clone());
        let modes = Arc::new(Mutex::new(Modes { terminal, last: None }));
        let listener = Some(listen(pid(&child), Arc::clone(&transcript), Arc::clone(&modes)));
        Self { child, listener, transcript, seen: 0, input, held: ends.held, first_modes, modes }
    }

    /// Sends all of `bytes` to its terminal or pipe.
    ///
    /// # Panics
    /// They aren't accepted within a minute, or there is neither a pipe nor a terminal.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        let sent = self.offer(bytes, crate::DEADLINE);
        assert_eq!(sent, bytes.len(), "the input isn't accepted\n{}", self.transcript);
    }

    /// As [`send`](Self::send), but gives up when nothing is accepted for `patience`, and returns the number
    /// of bytes accepted.
    #[track_caller]
    pub fn offer(&mut self, bytes: &[u8], patience: Duration) -> usize {
        let input = self.input.as_ref().expect("the input is a pipe or a terminal, and open");
        let mut sent = 0;
        while sent < bytes.len() && wait_ready(input, PollFlags::POLLOUT, Some(Instant::now() + patience)) {
            match nix::unistd::write(input, &bytes[sent..]) {
                Ok(len) => sent += len,
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => panic!("the input was closed ({errno})\n{}", self.transcript),
            }
        }
        sent
    }

    /// Closes the input, if it is a pipe.
    pub fn close_stdin(&mut self) {
        self.input = None;
    }

    /// Waits for `needle` on standard output after what earlier calls consumed, and returns the text before
    /// it.
    #[track_caller]
    pub fn expect(&mut self, needle: &str, deadline: Duration) -> String {
        let from = self.seen;
        // Scans each byte once, because a guest may print a lot during a long wait.
        let mut looked = from;
        let found = self.transcript.wait(Instant::now() + deadline, |state| {
            let at = find(&state.stdout.bytes[looked..], needle.as_bytes()).map(|at| looked + at);
            looked = from.max((state.stdout.bytes.len() + 1).saturating_sub(needle.len()));
            at.map(Some).or_else(|| state.stdout.ended.then_some(None))
        });
        let why = || if found.is_none() { "within the deadline" } else { "before the end of the output" };
        let Some(Some(at)) = found else { panic!("no {needle:?} {}\n{}", why(), self.transcript) };
        self.seen = at + needle.len();
        String::from_utf8_lossy(&self.transcript.state().stdout.bytes[from..at]).into_owned()
    }

    /// Waits for `needle` on standard error.
    #[track_caller]
    pub fn expect_stderr(&mut self, needle: &str, deadline: Duration) {
        let found = self.transcript.wait(Instant::now() + deadline, |state| {
            let found = find(&state.stderr.bytes, needle.as_bytes()).is_some();
            (found || state.stderr.ended).then_some(found)
        });
        assert_eq!(found, Some(true), "no {needle:?} on standard error\n{}", self.transcript);
    }

    /// Expects that nothing is printed for `window`.
    #[track_caller]
    pub fn expect_quiet(&mut self, window: Duration) {
        let seen = |state: &ProgramState| (state.stdout.bytes.len(), state.exited);
        let before = seen(&self.transcript.state());
        let noise =
            self.transcript.wait(Instant::now() + window, |state| (seen(state) != before).then_some(()));
        assert_eq!(noise, None, "not quiet\n{}", self.transcript);
    }

    /// Waits until the program has exited and all of its output was read.
    #[track_caller]
    pub fn expect_exit(&mut self, deadline: Duration) -> ExitStatus {
        let is_over =
            |state: &ProgramState| (state.exited && state.stdout.ended && state.stderr.ended).then_some(());
        let over = self.transcript.wait(Instant::now() + deadline, is_over);
        assert!(over.is_some(), "no exit within {deadline:?}\n{}", self.transcript);
        self.reap()
    }

    /// [`expect_exit`](Self::expect_exit), and the exit code must be `code`.
    #[track_caller]
    pub fn expect_code(&mut self, code: i32, deadline: Duration) {
        let status = self.expect_exit(deadline);
        assert_eq!(status.code(), Some(code), "{status}\n{}", self.transcript);
    }

    /// All of standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.transcript.state().stdout.bytes.clone()
    }

    /// All of standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.transcript.state().stderr.bytes).into_owned()
    }

    /// The read end of standard output, for a test that reads it by itself, late or never:
    /// [`Stdout::Held`](crate::Stdout).
    pub fn take_stdout(&mut self) -> PipeReader {
        self.held.take().expect("the output is held, and not taken yet")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("a process that isn't reaped yet");
    }

    /// The terminal modes before the program was started.
    pub fn termios_before(&self) -> Termios {
        self.first_modes.clone().expect("the program was started on a terminal")
    }

    /// The current terminal modes, or those at the program's exit.
    pub fn termios(&self) -> Termios {
        let modes = self.modes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = modes.terminal.as_ref().map(Terminal::modes);
        now.or_else(|| modes.last.clone()).expect("the program was started on a terminal")
    }

    /// Sets the terminal modes, as a shell does while the program is stopped.
    pub fn set_termios(&self, modes: &Termios) {
        let terminals = self.modes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        terminals.terminal.as_ref().expect("the program runs on a terminal").set_modes(modes);
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        pid(&self.child)
    }

    /// Resident memory in KiB (VmRSS).
    pub fn rss_kib(&self) -> u64 {
        process::status_kib(self.pid(), "VmRSS")
    }

    /// Resident anonymous memory in KiB (RssAnon), including guest memory.
    pub fn rss_anon_kib(&self) -> u64 {
        process::status_kib(self.pid(), "RssAnon")
    }

    /// Memory that it has written to, in KiB, without guest memory, which are the mappings of these lengths in bytes. The program's code
    /// isn't in it: how much of that is mapped depends on the host's page cache.
    pub fn own_dirty_kib(&self, guest_ram_lens: &[u64]) -> u64 {
        process::dirty_kib_without(self.pid(), guest_ram_lens)
    }

    /// CPU time of all threads.
    pub fn cpu_time(&self) -> Duration {
        process::cpu_time(self.pid())
    }

    /// CPU time of the first thread, which has the event loop.
    pub fn main_cpu_time(&self) -> Duration {
        process::main_cpu_time(self.pid())
    }

    /// Names of its threads.
    pub fn thread_names(&self) -> Vec<String> {
        process::thread_names(self.pid())
    }

    /// Name and allowed host CPUs of each thread, as listed by the kernel.
    pub fn thread_cpus(&self) -> Vec<(String, String)> {
        process::thread_cpus(self.pid())
    }

    /// Reaps the program, after the listener, which must still find it.
    fn reap(&mut self) -> ExitStatus {
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        self.child.wait().expect("our own child")
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // No effect on a reaped process: std remembers.
        let _ = self.child.kill();
        self.reap();
    }
}

/// Waits for the program's exit on a thread, which saves the terminal's modes before the terminal may close.
fn listen(pid: Pid, transcript: Arc<Transcript>, modes: Arc<Mutex<Modes>>) -> JoinHandle<()> {
    thread::spawn(move || {
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        let mut modes = modes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        modes.last = modes.terminal.as_ref().map(Terminal::modes);
        modes.terminal = None;
        drop(modes);
        transcript.note(|state| state.exited = true);
    })
}
