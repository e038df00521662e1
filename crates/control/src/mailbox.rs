//! What other threads have for the server's: responses and events.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use vmm_bus::EventFd;
use vmm_config::{Answer, CommandError, ErrorCode, Event, Response};

/// Events that wait for the server's thread. It takes them at once, so more come only if a guest causes them without end.
const EVENTS: usize = 1024;

#[derive(Debug)]
pub(crate) struct Mailbox {
    letters: Mutex<Letters>,
    /// Written when there are letters.
    pub(crate) wake: EventFd,
}

#[derive(Debug, Default)]
pub(crate) struct Letters {
    /// Each with the number of its connection.
    pub(crate) responses: Vec<(u64, Response)>,
    /// Files of clients that are to be closed.
    pub(crate) unused: Vec<OwnedFd>,
    pub(crate) events: VecDeque<Event>,
    /// Events that there was no room for, after the others.
    pub(crate) lost: u64,
    /// The last event, and until when clients are waited for.
    pub(crate) end: Option<(Event, Instant)>,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { letters: Mutex::default(), wake: EventFd::new()? })
    }

    pub(crate) fn put(&self, put: impl FnOnce(&mut Letters)) {
        put(&mut self.letters());
        // Can't be full: the counter would have to reach 2^64 - 1.
        let _ = self.wake.write(1);
    }

    pub(crate) fn take(&self) -> Letters {
        let _ = self.wake.read();
        std::mem::take(&mut *self.letters())
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().expect("no panic while it is held")
    }
}

/// Tells the clients of a control socket that have asked for it what happens. Clones tell the same ones.
#[derive(Clone, Debug)]
pub struct Events(pub(crate) Arc<Mailbox>);

impl Events {
    /// Queues an event, without blocking. If very many wait already it is lost, and the clients are told how many were.
    pub fn tell(&self, event: Event) {
        self.0.put(|letters| match letters.events.len() < EVENTS && letters.lost == 0 {
            true => letters.events.push_back(event),
            false => letters.lost += 1,
        });
    }
}

/// Answers one request. Dropped without an answer, it answers that the machine has ended.
#[derive(Debug)]
pub struct Responder {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) connection: u64,
    /// `None` once it is answered.
    pub(crate) id: Option<u64>,
    /// Counts the requests with files that are in progress.
    pub(crate) counted: Option<Arc<()>>,
}

impl Responder {
    /// Sends the response, without blocking.
    pub fn respond(self, response: Response) {
        self.respond_and_close(response, Vec::new());
    }

    /// [`respond`](Self::respond)s, and has `unused` closed by another thread: files of the request, whose closing may wait for the storage
    /// of the client's choice.
    pub fn respond_and_close(mut self, response: Response, unused: Vec<OwnedFd>) {
        self.id = None;
        // Before the client can send the next.
        drop(self.counted.take());
        self.send(response, unused);
    }

    fn send(&self, response: Response, unused: Vec<OwnedFd>) {
        self.mailbox.put(|letters| {
            letters.responses.push((self.connection, response));
            letters.unused.extend(unused);
        });
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let error = CommandError::new(ErrorCode::Ended, "the monitor has ended");
            self.send(Response { id, answer: Answer::Error(error) }, Vec::new());
        }
    }
}
