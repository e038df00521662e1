//! Signals as events. Of those that ask for an end, the first SIGTERM asks the guest, if it listens, the others the monitor;
//! SIGUSR1 asks for the counters, SIGWINCH for a look at the terminal's size.

use std::io;
use std::sync::mpsc::Sender;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::error;

use crate::event_loop::Message;

/// What asks the monitor to end: a service manager, Ctrl-C where the terminal isn't raw, a closed terminal.
const ENDING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Takes these signals, SIGUSR1 and SIGWINCH from their default, which would kill the monitor with the terminal still raw.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
    messages: Sender<Message>,
}

impl Signals {
    /// Blocks the signals in this thread. Call it before other threads start, which inherit that.
    pub(crate) fn block(messages: Sender<Message>) -> io::Result<Self> {
        let set: SigSet = ENDING.into_iter().chain([Signal::SIGUSR1, Signal::SIGWINCH]).collect();
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, messages })
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
            let message = match info.ssi_signo as i32 {
                libc::SIGUSR1 => Message::Metrics,
                libc::SIGWINCH => Message::Resized,
                ending => Message::Signal(ending),
            };
            // The receiver lives in the same machine; if it has gone, so have we.
            let _ = self.messages.send(message);
        }
    }
}
