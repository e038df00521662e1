//! The queue of requests to the supervisor, and the requests in progress.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use vmm_bus::EventFd;
use vmm_config::{Answer, Reply, Request, Response};
use vmm_virtio::DeviceError;

use super::snapshotting::SaveAnswer;

/// Sends commands to a [`Supervisor`](crate::Supervisor) from any thread. Clones send to the same one.
#[derive(Clone, Debug)]
pub struct Commander {
    requests: Sender<QueuedRequest>,
    wake: Arc<EventFd>,
}

/// A request, and what takes its response.
pub(super) struct QueuedRequest {
    pub(super) request: Request,
    /// The files that came with it, of a client's choice.
    pub(super) files: Vec<OwnedFd>,
    respond: Box<dyn FnOnce(Response, Vec<OwnedFd>) + Send>,
}

impl fmt::Debug for QueuedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request.fmt(f)
    }
}

/// Both ends of the request queue, and the requests in progress.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) commander: Commander,
    pub(super) received: Receiver<QueuedRequest>,
    pub(super) pending: Vec<Pending>,
}

/// A request in progress.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) queued: QueuedRequest,
    pub(super) until: CompletionEvent,
}

/// The event that completes a request.
#[derive(Debug)]
pub(super) enum CompletionEvent {
    /// The machine is paused, or is running again.
    StateReached,
    /// The snapshot is written, or can't be.
    Saved(Receiver<SaveAnswer>),
    /// The device's thread has sent its answer.
    Device(Receiver<Result<Reply, DeviceError>>),
}

impl Commander {
    /// Queues a request. `respond` is called with the response when the command is done or has failed, on the supervisor's thread, which it
    /// must not block. If the supervisor no longer exists, it is dropped uncalled.
    pub fn send(&self, request: Request, respond: impl FnOnce(Response) + Send + 'static) {
        self.send_with_files(request, Vec::new(), |response, _| respond(response));
    }

    /// [`send`](Self::send)s a request that comes with files. `respond` also receives those that weren't used: it must not close them on
    /// the supervisor's thread, because that may wait for the storage of whoever opened them.
    pub fn send_with_files(
        &self,
        request: Request,
        files: Vec<OwnedFd>,
        respond: impl FnOnce(Response, Vec<OwnedFd>) + Send + 'static,
    ) {
        if self.requests.send(QueuedRequest { request, files, respond: Box::new(respond) }).is_ok() {
            // Can't be full: the counter would have to reach 2^64 - 1.
            let _ = self.wake.write(1);
        }
    }
}

impl Requests {
    /// Makes the event loop look at the queue once more.
    pub(super) fn look_again(&self) {
        // Can't be full: the counter would have to reach 2^64 - 1.
        let _ = self.commander.wake.write(1);
    }

    pub(super) fn new(wake: Arc<EventFd>) -> Self {
        let (requests, received) = channel();
        Self { commander: Commander { requests, wake }, received, pending: Vec::new() }
    }
}

impl QueuedRequest {
    pub(super) fn answer(self, answer: Answer) {
        (self.respond)(Response { id: self.request.id, answer }, self.files);
    }
}
