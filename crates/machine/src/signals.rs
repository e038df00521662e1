//! Signals as events. The first SIGTERM presses the guest's power button, other terminating signals end the monitor; SIGUSR1
//! writes the counters, SIGWINCH updates the terminal's size. SIGTSTP stops the process after the terminal's modes have been restored,
//! and after SIGCONT the terminal is made raw again.

use std::io;
use std::path::Path;
use std::sync::mpsc::Sender;

use event_manager::{EventOps, EventSet, Events};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use vmm_hostio::crash;
use vmm_sys_util::signal::{SIGRTMAX, SIGRTMIN, unblock_signal};

use crate::message::Message;
use crate::watched::Watched;

/// Signals that keep their default action, besides the crash signals in [`crash::SIGNALS`]: they are ignored by default. SIGURG
/// kicks vCPU threads.
const OTHERS: [Signal; 2] = [Signal::SIGCHLD, Signal::SIGURG];

/// Blocks SIGXFSZ in this thread and in those that it starts: a write beyond RLIMIT_FSIZE then fails with EFBIG, as on a full
/// disk. For writes before a [`Supervisor`](crate::Supervisor) exists.
pub fn outlive_file_limits() {
    // It fails only for an invalid mask.
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
}

/// Stops the process, as SIGTSTP does by default, until SIGCONT. Does nothing if nobody could continue it, because its process group
/// is orphaned (setpgid(2)). Call it on a thread that blocks the signal.
pub(crate) fn stop() {
    let stop = SigSet::from(Signal::SIGTSTP);
    // For this thread, so that it is stopped before the signal is blocked again. They fail only for an invalid signal or mask.
    let _ = raise(Signal::SIGTSTP).and_then(|()| stop.thread_unblock()).and_then(|()| stop.thread_block());
}

/// Receives all other signals, most of which would by default kill the monitor while the terminal is raw.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
    messages: Sender<Message>,
}

impl Signals {
    /// Blocks the signals in this thread, except those that the process has inherited as ignored, as from nohup(1) and for a
    /// script's background jobs. Call it before starting other threads, which inherit the mask.
    ///
    /// Three are blocked only for the effect on system calls. SIGXFSZ: see [`outlive_file_limits`]. SIGTTIN and SIGTTOU would
    /// stop a background job before it handles the signal that is to end it; with them blocked, a read fails with EIO.
    ///
    /// # Errors
    /// The host is out of descriptors, or /proc isn't mounted.
    pub(crate) fn block(messages: Sender<Message>) -> io::Result<Self> {
        let fd = SignalFd::with_flags(&block_all()?, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, messages })
    }
}

/// Blocks the signals that [`Signals`] receives, and returns them.
fn block_all() -> io::Result<SigSet> {
    let ignored = ignored(Path::new("/proc/self/status"))?;
    let kept: SigSet = crash::SIGNALS.into_iter().chain(OTHERS).collect();
    let mut set = SigSet::all();
    kept.iter().for_each(|signal| set.remove(signal));
    set.thread_block()?;
    // The parent may have blocked them, and a fault whose signal is blocked kills without a handler.
    kept.thread_unblock()?;
    // A blocked signal stays pending even if it is ignored, so ignored ones are unblocked. 32 up to SIGRTMIN belong to the C
    // library, which never blocks them.
    let numbers = (1..32).chain(SIGRTMIN()..=SIGRTMAX());
    for number in numbers.filter(|number| ignored & 1 << (number - 1) != 0) {
        unblock_signal(number).map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    Ok(set)
}

/// The signals that the process ignores: bit n - 1 for signal n (SigIgn in proc_pid_status(5)).
fn ignored(status: &Path) -> io::Result<u64> {
    let status = std::fs::read_to_string(status).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::other(format!("{} doesn't exist; mount /proc", status.display()))
        }
        _ => error,
    })?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.ok_or_else(|| io::Error::other("/proc/self/status has no SigIgn"))
}

/// The message for a signal; `None` if it is only blocked.
fn message(signal: i32) -> Option<Message> {
    match signal {
        libc::SIGUSR1 => Some(Message::Metrics),
        libc::SIGWINCH => Some(Message::Resized),
        libc::SIGTSTP => Some(Message::Stop),
        libc::SIGCONT => Some(Message::Continued),
        libc::SIGXFSZ | libc::SIGTTIN | libc::SIGTTOU => None,
        ending => Some(Message::Signal(ending)),
    }
}

impl Watched for Signals {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        ops.add(Events::new(&self.fd, EventSet::IN))
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        while let Ok(Some(info)) = self.fd.read_signal() {
            if let Some(message) = message(info.ssi_signo as i32) {
                // The supervisor owns the receiver and this source; the send can't fail while both exist.
                let _ = self.messages.send(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_ignored_of_a_rust_program_are_those_of_its_runtime() {
        let pipe = 1 << (libc::SIGPIPE - 1);
        assert_eq!(ignored(Path::new("/proc/self/status")).unwrap() & pipe, pipe);
    }

    #[test]
    fn signals_of_crashes_that_the_parent_has_blocked_are_received() {
        let thread = std::thread::spawn(|| {
            SigSet::all().thread_block().unwrap();
            block_all().unwrap();
            SigSet::thread_get_mask().unwrap()
        });
        let mask = thread.join().unwrap();
        let blocked: Vec<_> =
            crash::SIGNALS.into_iter().chain(OTHERS).filter(|signal| mask.contains(*signal)).collect();
        assert_eq!(blocked, []);
        assert!(mask.contains(Signal::SIGTERM));
    }

    #[test]
    fn signals_without_proc_are_an_error_with_the_remedy() {
        let error = ignored(Path::new("/missing/status")).unwrap_err();
        assert_eq!(error.to_string(), "/missing/status doesn't exist; mount /proc");
    }

    #[test]
    fn signals_that_are_fatal_by_default_end_the_run_but_a_full_disk_does_not() {
        assert_eq!(message(libc::SIGQUIT), Some(Message::Signal(libc::SIGQUIT)));
        assert_eq!(message(libc::SIGALRM), Some(Message::Signal(libc::SIGALRM)));
        assert_eq!(message(libc::SIGXFSZ), None);
        assert_eq!(message(libc::SIGTTIN), None);
        assert_eq!(message(libc::SIGCONT), Some(Message::Continued));
    }
}
