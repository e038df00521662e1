//! The event sources of the main thread's event loop.
//!
//! A source handles its own descriptors. Events that concern the whole machine go to the supervisor as [`Message`]s, which it
//! reads after each turn of the loop; no source calls another.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use tracing::error;
use vmm_bus::EventFd;

use crate::console::Console;
use crate::deadline::Deadline;
use crate::diagnostics::MessageWriter;
use crate::message::Message;
use crate::signals::Signals;

/// An event source.
#[derive(Debug)]
pub(crate) enum Source {
    Console(Box<Console>),
    Signals(Signals),
    EventFd(EventFdSource),
    MessageWriter(MessageWriter),
    Deadline(Deadline),
}

impl MutEventSubscriber for Source {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        match self {
            Self::Console(source) => source.init(ops),
            Self::Signals(source) => source.init(ops),
            Self::EventFd(source) => source.init(ops),
            Self::MessageWriter(source) => source.init(ops),
            Self::Deadline(source) => source.init(ops),
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match self {
            Self::Console(source) => source.process(events, ops),
            Self::Signals(source) => source.process(events, ops),
            Self::EventFd(source) => source.process(events, ops),
            Self::MessageWriter(source) => source.process(events, ops),
            Self::Deadline(source) => source.process(events, ops),
        }
    }
}

/// An eventfd that other threads write, turned into a [`Message`].
#[derive(Debug)]
pub(crate) struct EventFdSource {
    event: Arc<EventFd>,
    message: Message,
    messages: Sender<Message>,
}

impl EventFdSource {
    /// Sends `message` when `event` has been written; several writes may cause one message.
    pub(crate) fn new(event: Arc<EventFd>, message: Message, messages: Sender<Message>) -> Self {
        Self { event, message, messages }
    }
}

impl MutEventSubscriber for EventFdSource {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&*self.event, EventSet::IN)) {
            error!("can't add an eventfd to epoll: {error}");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        // Non-blocking. The count doesn't matter.
        let _ = self.event.read();
        // The supervisor owns the receiver and this source; the send can't fail while both exist.
        let _ = self.messages.send(self.message);
    }
}
