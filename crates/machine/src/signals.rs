//! Signals as events. Of those that ask for an end, the first SIGTERM asks the guest, if it listens, the others the monitor;
//! SIGUSR1 asks for the counters, SIGWINCH for a look at the terminal's size, and after SIGCONT the terminal is made raw again.

use std::io;
use std::sync::mpsc::Sender;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::error;
use vmm_hostio::crash;
use vmm_sys_util::signal::{SIGRTMAX, SIGRTMIN, unblock_signal};

use crate::message::Message;

/// What stays as it is, beside [`crash::SIGNALS`], which can't wait: the one that a user stops a process with on a terminal, and
/// those that nobody heeds unless asked to, of which SIGURG kicks vCPU threads.
const OTHERS: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGCHLD, Signal::SIGURG];

/// Blocks SIGXFSZ in this thread and in those that it starts, for what is opened before there is a machine: a file at its limit of
/// length is a full disk, and the write says so (EFBIG).
pub fn outlive_file_limits() {
    // It is refused for a mask that isn't one.
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
}

/// Takes all other signals from their default, which for most is to kill the monitor with the terminal still raw.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
    messages: Sender<Message>,
}

impl Signals {
    /// Blocks the signals in this thread, but those that whoever started the process wants ignored, as nohup(1) and a script's
    /// background jobs do. Call it before other threads start, which inherit that.
    ///
    /// Some are blocked in all of them and never looked at. SIGXFSZ: see [`outlive_file_limits`]. SIGTTIN and SIGTTOU: they would stop a
    /// background job before it reads the signal that is to end it; a read fails with EIO instead.
    pub(crate) fn block(messages: Sender<Message>) -> io::Result<Self> {
        let fd = SignalFd::with_flags(&block_all()?, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, messages })
    }
}

/// Blocks what [`Signals`] takes, and returns it.
fn block_all() -> io::Result<SigSet> {
    let ignored = ignored()?;
    let mut set = SigSet::all();
    crash::SIGNALS.into_iter().chain(OTHERS).for_each(|signal| set.remove(signal));
    set.thread_block()?;
    // A blocked signal waits even if it is ignored. Those before the first real-time signal are the C library's own, which blocks none
    // of them.
    let numbers = (1..32).chain(SIGRTMIN()..=SIGRTMAX());
    for number in numbers.filter(|number| ignored & 1 << (number - 1) != 0) {
        unblock_signal(number).map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    Ok(set)
}

/// The signals that the process ignores, as bits from 1 on (proc_pid_status(5)).
fn ignored() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.ok_or_else(|| io::Error::other("/proc/self/status has no SigIgn"))
}

/// What a signal asks for.
fn message(signal: i32) -> Option<Message> {
    match signal {
        libc::SIGUSR1 => Some(Message::Metrics),
        libc::SIGWINCH => Some(Message::Resized),
        libc::SIGCONT => Some(Message::Continued),
        libc::SIGXFSZ | libc::SIGTTIN | libc::SIGTTOU => None,
        ending => Some(Message::Signal(ending)),
    }
}

impl MutEventSubscriber for Signals {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.fd, EventSet::IN)) {
            error!("epoll refuses the signalfd: {error}");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        while let Ok(Some(info)) = self.fd.read_signal() {
            if let Some(message) = message(info.ssi_signo as i32) {
                // The receiver lives in the same machine; if it has gone, so have we.
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
        assert_eq!(ignored().unwrap() & pipe, pipe);
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
