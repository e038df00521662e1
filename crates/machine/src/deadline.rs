//! The end of a run's time.

use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use tracing::error;
use vmm_sys_util::timerfd::TimerFd;

use crate::message::Message;

/// A timer that tells the machine once.
pub(crate) struct Deadline {
    timer: TimerFd,
    word: Message,
    messages: Sender<Message>,
}

impl Deadline {
    /// Says `word` when `timeout` has passed from now on. A zero timeout would never fire; it counts as the shortest that does.
    pub(crate) fn start(timeout: Duration, word: Message, messages: Sender<Message>) -> io::Result<Self> {
        let mut timer = TimerFd::new()?;
        timer.reset(timeout.max(Duration::from_nanos(1)), None)?;
        Ok(Self { timer, word, messages })
    }
}

impl MutEventSubscriber for Deadline {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.timer, EventSet::IN)) {
            error!("epoll refuses the timer: {error}");
        }
    }

    fn process(&mut self, _events: Events, ops: &mut EventOps<'_>) {
        // It has said its word; read, it would still be a descriptor that blocks.
        if let Err(error) = ops.remove(Events::empty(&self.timer)) {
            error!("epoll keeps the timer: {error}");
        }
        // The receiver lives in the same machine; if it has gone, so have we.
        let _ = self.messages.send(self.word);
    }
}

impl std::fmt::Debug for Deadline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deadline").finish_non_exhaustive()
    }
}
