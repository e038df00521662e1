//! The way of the lines to standard error, as a subscriber of the event loop.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use tracing::error;
use vmm_devices::{Output, Overflow};

use crate::event_loop::Message;
use crate::fd::{Direction, HostFd, Transfer};
use crate::watch::Watch;

const READY: u32 = 0;
const WRITABLE: u32 = 1;

/// Bytes taken from the queue at once.
const CHUNK_LEN: usize = 4096;
/// Transfers in a row before the other sources get their turn.
const TURNS: usize = 16;

/// Writes a queue to standard error without ever waiting for its reader.
#[derive(Debug)]
pub(crate) struct Stream {
    output: Arc<Output>,
    /// `None` when nobody reads any more.
    fd: Option<HostFd>,
    writable: Watch,
    messages: Sender<Message>,
    /// Taken from the queue, not yet written: `chunk[start..end]`.
    chunk: Box<[u8; CHUNK_LEN]>,
    start: usize,
    end: usize,
}

impl Stream {
    pub(crate) fn open(output: Arc<Output>, messages: Sender<Message>) -> io::Result<Self> {
        let fd = HostFd::standard(io::stderr().as_fd(), Direction::Out)?;
        let writable = Watch::new(WRITABLE, EventSet::OUT);
        let chunk = Box::new([0; CHUNK_LEN]);
        Ok(Self { output, fd: Some(fd), writable, messages, chunk, start: 0, end: 0 })
    }

    /// Whether all lines are out, or nobody wants them.
    pub(crate) fn is_drained(&self) -> bool {
        self.fd.is_none() || (self.start == self.end && self.output.is_empty())
    }

    fn pump(&mut self, ops: &mut EventOps<'_>) {
        for _ in 0..TURNS {
            let Some(fd) = &self.fd else { return };
            if self.start == self.end {
                let taken = self.output.take(&mut self.chunk[..]);
                (self.start, self.end) = (0, taken.len);
                if taken.wake {
                    self.wake();
                }
                if taken.len == 0 {
                    self.writable.disarm(fd, ops);
                    return;
                }
            }
            match fd.write(&self.chunk[self.start..self.end]) {
                Transfer::Moved(len) => self.start += len,
                Transfer::Blocked => {
                    self.writable.arm(fd, ops);
                    return;
                }
                // There is no place left to complain at.
                Transfer::Ended | Transfer::Failed(_) => return self.give_up(ops),
            }
        }
        // More may wait. Once more, after the other sources.
        let _ = self.output.ready().write(1);
    }

    /// The guest goes on unseen.
    fn give_up(&mut self, ops: &mut EventOps<'_>) {
        if let Some(fd) = self.fd.take() {
            self.writable.disarm(&fd, ops);
        }
        if self.output.set_overflow(Overflow::DropOldest) {
            self.wake();
        }
    }

    fn wake(&self) {
        // The receiver lives in the same machine; if it has gone, so have we.
        let _ = self.messages.send(Message::Wake);
    }
}

impl MutEventSubscriber for Stream {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::with_data(self.output.ready(), READY, EventSet::IN)) {
            error!("epoll refuses the eventfd of the trace: {error}");
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.data() == READY {
            // Non-blocking; an error means that another turn took the count.
            let _ = self.output.ready().read();
        }
        self.pump(ops);
    }
}
