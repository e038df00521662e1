//! The way of the monitor's messages to their reader, as a subscriber of the event loop.

use std::sync::mpsc::Sender;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use tracing::error;

use crate::Messages;
use crate::message::Message;
use crate::messages::Pumped;
use crate::watch::Watch;

const READY: u32 = 0;
const WRITABLE: u32 = 1;

/// Writes messages that had to wait, when their reader is ready. It keeps nothing of them itself: another machine's event loop
/// may go on with them.
#[derive(Debug)]
pub(crate) struct Stream {
    lines: Messages,
    writable: Watch,
    messages: Sender<Message>,
}

impl Stream {
    pub(crate) fn new(lines: Messages, messages: Sender<Message>) -> Self {
        Self { lines, writable: Watch::new(WRITABLE, EventSet::OUT), messages }
    }

    fn pump(&mut self, ops: &mut EventOps<'_>) {
        let pumped = self.lines.pump();
        if self.lines.take_wake() {
            // The receiver lives in the same machine; if it has gone, so have we.
            let _ = self.messages.send(Message::Wake);
        }
        let fd = match pumped {
            // Whatever was opened for lines is open still.
            Pumped::Blocked | Pumped::All if self.lines.is_open() => self.lines.fd(),
            _ => None,
        };
        match (pumped, fd) {
            (Pumped::Blocked, Some(fd)) => {
                self.writable.arm(fd, ops);
            }
            (Pumped::All, Some(fd)) => self.writable.disarm(fd, ops),
            (Pumped::Some, _) => {
                // Once more, after the other sources.
                let _ = self.lines.queue().ready().write(1);
            }
            (_, None) => {}
        }
    }
}

impl MutEventSubscriber for Stream {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let ready = Events::with_data(self.lines.queue().ready(), READY, EventSet::IN);
        if let Err(error) = ops.add(ready) {
            error!("epoll refuses the eventfd of the messages: {error}");
        }
        // What has waited since before the machine.
        self.pump(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.data() == READY {
            // Non-blocking; an error means that another turn took the count.
            let _ = self.lines.queue().ready().read();
        }
        self.pump(ops);
    }
}
