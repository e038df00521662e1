//! The thread that serves the clients.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_config::{Answer, CommandError, ErrorCode, Event, Request, Response};
use vmm_hostio::NamedSocket;
use vmm_sandbox::{Allow, confine_thread};

use crate::closer::{ClientFiles, Closer};
use crate::connection::Connection;
use crate::mailbox::{Events, Letters, Mailbox, Responder};

/// Clients at a time. When there are more, the one that has been silent longest makes room, unless it waits for something.
const CLIENTS: usize = 1000;
/// Requests with files that are in progress at a time, and likewise lines with files whose end hasn't come yet. The machine carries out one
/// such request at a time. With what is being closed, clients have at most 100 of the monitor's descriptors, besides their connections.
const WITH_FILES: usize = 16;
/// When a client that the host had no descriptor for is tried again. Nothing reports that one is free.
const RETRY: Duration = Duration::from_millis(100);
/// The client has closed the connection.
const HUNG_UP: PollFlags = PollFlags::HUP.union(PollFlags::ERR);
/// Bytes of the thread's stack.
const STACK_LEN: usize = 256 << 10;

/// What the server's thread calls besides [`BASE`](vmm_sandbox::BASE).
pub const SYSTEM_CALLS: &[Allow] = &[
    Allow::call(libc::SYS_accept4),
    Allow::call(libc::SYS_recvmsg),
    Allow::masked(libc::SYS_sendto, 3, libc::MSG_FASTOPEN as u32, 0),
    Allow::call(libc::SYS_ppoll),
];

/// A control socket, before it is served.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    mailbox: Arc<Mailbox>,
}

/// A control socket that is served by a thread. Dropping it leaves the thread running.
#[derive(Debug)]
pub struct Server {
    thread: JoinHandle<()>,
    mailbox: Arc<Mailbox>,
}

impl ControlSocket {
    /// Accepts clients at `socket`; those that connect wait until it is served. The name remains the caller's: dropping it, which may
    /// wait for storage, removes it, and nobody can connect any more.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub fn at(socket: &NamedSocket) -> io::Result<Self> {
        let listener = socket.as_fd().try_clone_to_owned()?.into();
        Ok(Self { listener, mailbox: Arc::new(Mailbox::new()?) })
    }

    /// The sender of events to its clients.
    #[must_use]
    pub fn events(&self) -> Events {
        Events(Arc::clone(&self.mailbox))
    }

    /// Starts a thread that passes requests to `execute`, which must not block, and sends the responses and events. The thread inherits the
    /// caller's signal mask, and is confined to [`SYSTEM_CALLS`] if the process has a sandbox.
    ///
    /// `execute` also receives the files of a request whose [command has some](vmm_config::Command::descriptors): at most so many, and of a
    /// kind that the client chose. Closing those that it doesn't use may block: [`Responder::respond_and_close`].
    ///
    /// # Errors
    /// The host is out of threads.
    pub fn serve(
        self,
        execute: impl Fn(Request, Vec<OwnedFd>, Responder) + Send + 'static,
    ) -> io::Result<Server> {
        let Self { listener, mailbox } = self;
        let closer = Closer::start()?;
        let theirs = Arc::clone(&mailbox);
        let body = move || {
            confine_thread("control", &[SYSTEM_CALLS]).expect("a filter was accepted at the start");
            let mut clients = Clients {
                mailbox: theirs,
                execute,
                closer,
                with_files: Arc::new(()),
                connections: BTreeMap::new(),
                next: 0,
                retry_at: None,
                end: None,
            };
            clients.serve(&listener);
        };
        let thread = thread::Builder::new().name("control".to_owned()).stack_size(STACK_LEN).spawn(body)?;
        Ok(Server { thread, mailbox })
    }
}

impl Server {
    /// The sender of events to its clients.
    #[must_use]
    pub fn events(&self) -> Events {
        Events(Arc::clone(&self.mailbox))
    }

    /// Sends the last event, waits at most `patience` for clients that read slowly, and disconnects them.
    pub fn end(self, last: Event, patience: Duration) {
        self.mailbox.put(|letters| letters.end = Some((last, Instant::now() + patience)));
        let _ = self.thread.join();
    }
}

struct Clients<F> {
    mailbox: Arc<Mailbox>,
    execute: F,
    closer: Closer,
    /// Each request with files that is in progress has a clone.
    with_files: Arc<()>,
    /// By number, in the order in which they have connected.
    connections: BTreeMap<u64, Connection>,
    next: u64,
    /// The host had no descriptor for a client: it is accepted then.
    retry_at: Option<Instant>,
    /// The last event was sent: until when slow clients are waited for.
    end: Option<Instant>,
}

impl<F: Fn(Request, Vec<OwnedFd>, Responder)> Clients<F> {
    fn serve(&mut self, listener: &UnixListener) {
        while !self.is_over() {
            let ready = self.wait(listener);
            self.deliver(self.mailbox.take());
            for (number, has_hung_up) in ready.clients {
                if has_hung_up && let Some(client) = self.connections.get_mut(&number) {
                    client.hang_up();
                }
                self.turn(number);
            }
            if ready.has_arrival {
                self.accept(listener);
            }
        }
    }

    fn is_over(&self) -> bool {
        let Some(until) = self.end else { return false };
        Instant::now() >= until || self.connections.values().all(|client| client.outbox.is_empty())
    }

    /// Waits until something can be done, and returns what.
    fn wait(&self, listener: &UnixListener) -> Ready {
        let has_room =
            self.end.is_none() && self.retry_at.is_none_or(|at| Instant::now() >= at) && self.has_room();
        let arrivals = if has_room { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(&self.mailbox.wake, PollFlags::IN), PollFd::new(listener, arrivals)];
        let connected = self
            .connections
            .iter()
            .filter_map(|(number, client)| Some((*number, PollFd::new(client.stream(), client.interest()?))));
        let numbers: Vec<u64> = connected
            .map(|(number, fd)| {
                fds.push(fd);
                number
            })
            .collect();
        // It fails only for a lack of memory, or a signal: then nothing is ready, and it is tried again.
        if poll(&mut fds, self.timeout().as_ref()).is_err() {
            thread::sleep(Duration::from_millis(1));
            return Ready { clients: Vec::new(), has_arrival: false };
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let clients = numbers.into_iter().zip(&fds[2..]).filter(|(_, fd)| is_ready(fd));
        let clients = clients.map(|(number, fd)| (number, fd.revents().intersects(HUNG_UP))).collect();
        Ready { clients, has_arrival: is_ready(&fds[1]) }
    }

    /// Until when to wait, at most.
    fn timeout(&self) -> Option<Timespec> {
        let next = self.retry_at.into_iter().chain(self.end).min()?;
        Timespec::try_from(next.saturating_duration_since(Instant::now())).ok()
    }

    fn deliver(&mut self, letters: Letters) {
        let Letters { responses, unused, events, lost, end } = letters;
        drop(self.closer.files(unused));
        for (number, response) in responses {
            // A client that has gone gets none.
            if let Some(client) = self.connections.get_mut(&number) {
                client.answer(&response);
            }
            self.turn(number);
        }
        let lost = (lost > 0).then_some(Event::Lost(lost));
        let last = end.map(|(last, until)| {
            self.end = Some(until);
            last
        });
        for event in events.into_iter().chain(lost).chain(last) {
            let told = self.connections.values_mut().filter(|client| client.sees_events);
            told.for_each(|client| client.outbox.push_event(event.clone()));
        }
        // What a socket doesn't take now, it takes when it is writable.
        self.connections.retain(|_, client| client.send().is_ok());
    }

    /// Does what a client's socket permits.
    fn turn(&mut self, number: u64) {
        let Some(client) = self.connections.get_mut(&number) else { return };
        let forward = |request: Request, files: Option<ClientFiles>| {
            let mailbox = Arc::clone(&self.mailbox);
            let (id, has_files) = (request.id, files.is_some());
            let is_busy = has_files && Arc::strong_count(&self.with_files) > WITH_FILES;
            let counted = has_files.then(|| Arc::clone(&self.with_files));
            let responder = Responder { mailbox, connection: number, id: Some(id), counted };
            if is_busy {
                responder.respond(Response { id, answer: Answer::Error(busy()) });
            } else {
                (self.execute)(request, files.map_or_else(Vec::new, ClientFiles::into_vec), responder);
            }
        };
        let is_there = if self.end.is_some() { client.send() } else { client.turn(forward) }.is_ok();
        if !is_there || client.is_over() {
            self.connections.remove(&number);
        } else if client.has_unfinished_files() {
            self.limit_unfinished_files(number);
        }
    }

    /// Refuses the files of a client that has sent some for a line whose end hasn't come yet, if too many others have too.
    fn limit_unfinished_files(&mut self, number: u64) {
        let count = self.connections.values().filter(|client| client.has_unfinished_files()).count();
        if count > WITH_FILES
            && let Some(client) = self.connections.get_mut(&number)
        {
            client.refuse_unfinished_files(&busy());
        }
    }

    /// Whether a client can be accepted, if need be in the place of another.
    fn has_room(&self) -> bool {
        self.connections.len() < CLIENTS || self.connections.values().any(Connection::is_idle)
    }

    fn accept(&mut self, listener: &UnixListener) {
        self.retry_at = None;
        match listener.accept() {
            Ok((stream, _)) => {
                self.make_room();
                self.connections.insert(self.next, Connection::new(stream, self.closer.clone()));
                self.next += 1;
            }
            // There is none, or it has gone.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
            Err(_) => self.retry_at = Some(Instant::now() + RETRY),
        }
    }

    /// Disconnects the idle client that has been silent longest, if there are too many.
    fn make_room(&mut self) {
        if self.connections.len() < CLIENTS {
            return;
        }
        let idle = self.connections.iter().filter(|(_, client)| client.is_idle());
        if let Some(number) = idle.min_by_key(|(_, client)| client.heard_at).map(|(number, _)| *number) {
            self.connections.remove(&number);
        }
    }
}

/// The refusal of further requests with files.
fn busy() -> CommandError {
    let message = format!("{WITH_FILES} requests with file descriptors are in progress; try again later");
    CommandError::new(ErrorCode::Busy, message)
}

/// What [`Clients::wait`] has waited for.
struct Ready {
    /// Each with whether it has closed the connection.
    clients: Vec<(u64, bool)>,
    has_arrival: bool,
}
