//! The sources of the main thread's event loop, and what they tell the machine.
//!
//! A source handles its own descriptors. What concerns the whole machine it puts into a queue of
//! [`Message`]s, which the machine reads after each turn of the loop; no source reaches into another.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use tracing::error;
use vmm_sys_util::eventfd::EventFd;

use crate::console::Console;
use crate::deadline::Deadline;
use crate::diagnostics::Stream;
use crate::message::Message;
use crate::signals::Signals;

/// A source of events.
#[derive(Debug)]
pub(crate) enum Source {
    Console(Box<Console>),
    Signals(Signals),
    Told(Told),
    Stream(Stream),
    Deadline(Deadline),
}

impl MutEventSubscriber for Source {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        match self {
            Self::Console(source) => source.init(ops),
            Self::Signals(source) => source.init(ops),
            Self::Told(source) => source.init(ops),
            Self::Stream(source) => source.init(ops),
            Self::Deadline(source) => source.init(ops),
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match self {
            Self::Console(source) => source.process(events, ops),
            Self::Signals(source) => source.process(events, ops),
            Self::Told(source) => source.process(events, ops),
            Self::Stream(source) => source.process(events, ops),
            Self::Deadline(source) => source.process(events, ops),
        }
    }
}

/// Hears from other threads by an eventfd that they write.
#[derive(Debug)]
pub(crate) struct Told {
    event: Arc<EventFd>,
    message: Message,
    messages: Sender<Message>,
}

impl Told {
    /// Every write of `event` gives a `message`; several may give one.
    pub(crate) fn new(event: Arc<EventFd>, message: Message, messages: Sender<Message>) -> Self {
        Self { event, message, messages }
    }
}

impl MutEventSubscriber for Told {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&*self.event, EventSet::IN)) {
            error!("epoll refuses an eventfd: {error}");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        // Non-blocking; the count doesn't matter.
        let _ = self.event.read();
        // The receiver lives in the same machine; if it has gone, so have we.
        let _ = self.messages.send(self.message);
    }
}
