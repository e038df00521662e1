//! Writes the monitor's messages, as an event source.

use std::sync::mpsc::Sender;

use event_manager::{EventOps, EventSet, Events};

use crate::Messages;
use crate::message::Message;
use crate::messages::PumpResult;
use crate::watch::{self, Watch};
use crate::watched::Watched;

const READY: u32 = 0;
const WRITABLE: u32 = 1;

/// Writes queued messages when their target becomes writable. It has no buffer of its own, so another event loop can take over
/// the queue.
#[derive(Debug)]
pub(crate) struct MessageWriter {
    lines: Messages,
    writable: Watch,
    messages: Sender<Message>,
}

impl MessageWriter {
    pub(crate) fn new(lines: Messages, messages: Sender<Message>) -> Self {
        Self { lines, writable: Watch::new(WRITABLE, EventSet::OUT), messages }
    }

    fn pump(&mut self, ops: &mut EventOps<'_>) {
        let pumped = self.lines.pump();
        if self.lines.take_wake() {
            // The supervisor owns the receiver and this source; the send can't fail while both exist.
            let _ = self.messages.send(Message::Wake);
        }
        let fd = match pumped {
            // Only if it has been opened: `fd` would open it.
            PumpResult::Blocked | PumpResult::All if self.lines.is_open() => self.lines.fd(),
            _ => None,
        };
        match (pumped, fd) {
            (PumpResult::Blocked, Some(fd)) => {
                self.writable.arm(fd, ops);
            }
            (PumpResult::All, Some(fd)) => self.writable.disarm(fd, ops),
            (PumpResult::Some, _) => {
                // Again, after the other sources.
                let _ = self.lines.queue().ready().write(1);
            }
            (_, None) => {}
        }
    }
}

impl Watched for MessageWriter {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        ops.add(Events::with_data(self.lines.queue().ready(), READY, EventSet::IN))?;
        // Lines may have been queued before.
        self.pump(ops);
        self.writable.take_failure().map_or(Ok(()), Err)
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.data() == READY {
            // Non-blocking; an error means that the count has been read already.
            let _ = self.lines.queue().ready().read();
        }
        self.pump(ops);
        watch::log(self.writable.take_failure());
    }
}
