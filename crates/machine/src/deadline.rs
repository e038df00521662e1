//! One-shot timeouts.

use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events};
use tracing::error;
use vmm_sys_util::timerfd::TimerFd;

use crate::message::Message;
use crate::watched::Watched;

/// A timer that sends one message.
pub(crate) struct Deadline {
    timer: TimerFd,
    message: Message,
    messages: Sender<Message>,
}

impl Deadline {
    /// Starts a timer that sends `message` after `timeout`. A zero timeout, which would disarm the timer, counts as 1 ns.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(crate) fn start(timeout: Duration, message: Message, messages: Sender<Message>) -> io::Result<Self> {
        let mut timer = TimerFd::new()?;
        timer.reset(timeout.max(Duration::from_nanos(1)), None)?;
        Ok(Self { timer, message, messages })
    }
}

impl Watched for Deadline {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        ops.add(Events::new(&self.timer, EventSet::IN))
    }

    fn process(&mut self, _events: Events, ops: &mut EventOps<'_>) {
        // It has expired. Removed instead of read, since a timerfd from vmm-sys-util is blocking.
        if let Err(error) = ops.remove(Events::empty(&self.timer)) {
            error!("can't remove a timer from epoll: {error}");
        }
        // The supervisor owns the receiver and this source; the send can't fail while both exist.
        let _ = self.messages.send(self.message);
    }
}

impl std::fmt::Debug for Deadline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deadline").finish_non_exhaustive()
    }
}
