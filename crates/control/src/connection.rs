//! One client.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use serde::Serialize;
use vmm_config::{Answer, Command, CommandError, Reply, Request, Response};

use crate::inbox::{Inbox, Refusal};
use crate::outbox::Outbox;

/// Requests of one client in progress at a time. Further ones wait in its socket.
const PENDING: u32 = 16;

#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    inbox: Inbox,
    pub(crate) outbox: Outbox,
    /// Requests that aren't answered yet.
    pending: u32,
    pub(crate) sees_events: bool,
    /// Nothing more is read from it: its input has ended, or can't be understood.
    is_deaf: bool,
    /// It has closed the connection: what it has asked for is still done, but nobody waits for a response.
    has_hung_up: bool,
    /// When it was accepted or has last sent something.
    pub(crate) heard_at: Instant,
}

/// The response to a line that isn't a request.
#[derive(Debug, Serialize)]
struct RefusedLine {
    id: Option<u64>,
    error: CommandError,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (inbox, outbox) = (Inbox::default(), Outbox::default());
        Self {
            stream,
            inbox,
            outbox,
            pending: 0,
            sees_events: false,
            is_deaf: false,
            has_hung_up: false,
            heard_at: Instant::now(),
        }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// What to wait for, besides a hang-up; `None` after that.
    pub(crate) fn interest(&self) -> Option<PollFlags> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.listens());
        flags.set(PollFlags::OUT, !self.outbox.is_empty());
        (!self.has_hung_up).then_some(flags)
    }

    /// The client has closed the connection.
    pub(crate) fn hang_up(&mut self) {
        self.has_hung_up = true;
    }

    /// Whether nobody misses it: it waits for nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending == 0 && !self.sees_events && self.outbox.is_empty()
    }

    /// Whether it has had all that it will get.
    pub(crate) fn is_over(&self) -> bool {
        self.is_deaf && if self.has_hung_up { self.pending == 0 } else { self.is_idle() }
    }

    fn listens(&self) -> bool {
        !self.is_deaf && self.pending < PENDING && !self.outbox.is_full()
    }

    /// Sends what its socket takes, reads what has come, and passes on the requests for the machine.
    ///
    /// # Errors
    /// The client has gone.
    pub(crate) fn turn(&mut self, mut forward: impl FnMut(Request)) -> io::Result<()> {
        self.send()?;
        // Once, for the others' sake. What one that has gone had sent is all there, and nothing reports it again.
        let mut has_received = self.listens() && self.receive()?;
        loop {
            let has_taken = self.take_requests(&mut forward);
            // Makes room for the responses to requests that have been received already: nothing reports those again either.
            self.send()?;
            has_received = self.has_hung_up && has_received && self.listens() && self.receive()?;
            if !has_taken && !has_received {
                return Ok(());
            }
        }
    }

    /// Reads once, and returns whether something has come.
    fn receive(&mut self) -> io::Result<bool> {
        let mut bytes = vec![0; self.inbox.room().min(4096)];
        match recv(&self.stream, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.is_deaf = true,
            Ok((len, _)) => {
                self.heard_at = Instant::now();
                self.inbox.extend(&bytes[..len]);
                return Ok(true);
            }
            // It has gone without reading all that was sent to it.
            Err(Errno::CONNRESET) => (self.is_deaf, self.has_hung_up) = (true, true),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(false)
    }

    /// Passes on the requests that have been received, as far as there may be more in progress, and returns whether there were any.
    fn take_requests(&mut self, mut forward: impl FnMut(Request)) -> bool {
        let mut has_taken = false;
        while self.pending < PENDING && !self.outbox.is_full() {
            match self.inbox.take_request() {
                Some(Ok(Request { id, command: Command::Events })) => {
                    self.sees_events = true;
                    self.outbox.push(&Response { id, answer: Answer::Result(Reply::Done) });
                }
                Some(Ok(request)) => {
                    self.pending += 1;
                    forward(request);
                }
                Some(Err(Refusal { id, error, is_final })) => {
                    self.outbox.push(&RefusedLine { id, error });
                    if is_final {
                        self.is_deaf = true;
                        self.inbox = Inbox::default();
                    }
                }
                None => break,
            }
            has_taken = true;
        }
        has_taken
    }

    pub(crate) fn answer(&mut self, response: &Response) {
        self.pending = self.pending.saturating_sub(1);
        self.outbox.push(response);
    }

    /// Sends what the client takes.
    ///
    /// # Errors
    /// The client has gone.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        if self.has_hung_up {
            self.outbox = Outbox::default();
        }
        self.outbox.send_to(&self.stream)
    }
}
