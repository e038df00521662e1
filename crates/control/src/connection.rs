//! One client.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::cmsg_space;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use serde::Serialize;
use vmm_config::{Answer, Command, CommandError, ErrorCode, Reply, Request, Response};

use crate::closer::{ClientFiles, Closer};
use crate::inbox::{FILES_MAX, Files, Inbox, Refusal, too_many};
use crate::outbox::Outbox;

/// Requests of one client in progress at a time. Further ones wait in its socket.
const PENDING: u32 = 16;
/// Batches of clients' files that aren't closed yet, from which on no more are taken.
const CLOSING: usize = 16;

#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    closer: Closer,
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
    pub(crate) fn new(stream: UnixStream, closer: Closer) -> Self {
        let (inbox, outbox) = (Inbox::default(), Outbox::default());
        Self {
            stream,
            closer,
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

    /// Whether it has sent files for a line whose end hasn't come yet.
    pub(crate) fn has_unfinished_files(&self) -> bool {
        self.inbox.has_unfinished_files()
    }

    /// Refuses these files, and the line if it ends.
    pub(crate) fn refuse_unfinished_files(&mut self, error: &CommandError) {
        self.inbox.refuse_unfinished_files(error);
    }

    fn listens(&self) -> bool {
        !self.is_deaf && self.pending < PENDING && !self.outbox.is_full()
    }

    /// Sends what its socket takes, reads what has come, and passes on the requests for the machine, with their files.
    ///
    /// # Errors
    /// The client has gone.
    pub(crate) fn turn(&mut self, mut forward: impl FnMut(Request, Option<ClientFiles>)) -> io::Result<()> {
        self.send()?;
        self.take_requests(&mut forward)?;
        // Once, for the others' sake. What one that has gone had sent is all there, and nothing reports it again.
        while self.listens() && self.receive()? {
            self.take_requests(&mut forward)?;
            if !self.has_hung_up {
                break;
            }
        }
        Ok(())
    }

    /// Reads once, and returns whether something has come. All whole lines have been taken: so there are files of at most two lines, the
    /// one whose end hasn't come yet and one that this reads.
    fn receive(&mut self) -> io::Result<bool> {
        let mut bytes = vec![0; self.inbox.room().min(4096)];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES_MAX))];
        let takes_files = self.closer.pending() < CLOSING;
        // The kernel closes descriptors that there is no space for.
        let mut control = RecvAncillaryBuffer::new(if takes_files { &mut space } else { &mut [] });
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(&self.stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) if received.bytes == 0 => self.become_deaf(),
            Ok(received) => {
                self.heard_at = Instant::now();
                let is_cut = received.flags.contains(ReturnFlags::CTRUNC);
                let files = self.files(&mut control, is_cut, takes_files);
                self.inbox.extend(&bytes[..received.bytes], files);
                return Ok(true);
            }
            // It has gone without reading all that was sent to it.
            Err(Errno::CONNRESET) => {
                self.has_hung_up = true;
                self.become_deaf();
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(false)
    }

    /// The files that were received. `is_cut`: there were more, which weren't taken.
    fn files(&self, control: &mut RecvAncillaryBuffer<'_>, is_cut: bool, takes_files: bool) -> Option<Files> {
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let files: Vec<OwnedFd> = descriptors.flatten().collect();
        let is_none = files.is_empty() && !is_cut;
        let files = self.closer.files(files);
        let count = files.len();
        let files = if !takes_files {
            let message =
                "file descriptors that clients have sent can't be closed: their storage doesn't respond";
            Err(CommandError::new(ErrorCode::StorageHangs, message))
        } else if count > FILES_MAX || is_cut && count == FILES_MAX {
            // The space has room for some more, because it is aligned.
            Err(too_many())
        } else if is_cut {
            let message =
                "the monitor has no room for file descriptors; raise its limit of open files (ulimit -n)";
            Err(CommandError::new(ErrorCode::HostRefuses, message))
        } else {
            Ok(files)
        };
        (!is_none).then_some(files)
    }

    /// Nothing more is read from it.
    fn become_deaf(&mut self) {
        self.is_deaf = true;
        self.inbox = Inbox::default();
    }

    /// Passes on the requests that have been received, as far as there may be more in progress, and sends what its socket takes.
    ///
    /// # Errors
    /// The client has gone.
    fn take_requests(&mut self, mut forward: impl FnMut(Request, Option<ClientFiles>)) -> io::Result<()> {
        // Sending makes room for the responses to requests that have been received already: nothing reports those again.
        while self.take_some(&mut forward) {
            self.send()?;
        }
        Ok(())
    }

    /// Passes on requests while there is room for their responses, and returns whether there were any.
    fn take_some(&mut self, mut forward: impl FnMut(Request, Option<ClientFiles>)) -> bool {
        let mut has_taken = false;
        while self.pending < PENDING && !self.outbox.is_full() {
            match self.inbox.take_request() {
                Some(Ok((Request { id, command: Command::Events }, _))) => {
                    self.sees_events = true;
                    self.outbox.push(&Response { id, answer: Answer::Result(Reply::Done) });
                }
                Some(Ok((request, files))) => {
                    self.pending += 1;
                    forward(request, files);
                }
                Some(Err(Refusal { id, error, is_final })) => {
                    self.outbox.push(&RefusedLine { id, error });
                    if is_final {
                        self.become_deaf();
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
