//! Requests on their way to the supervisor, and who waits for what to be done.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use vmm_config::{Answer, Reply, Request, Response};
use vmm_sys_util::eventfd::EventFd;
use vmm_virtio::DeviceError;

/// A way to give the machines of a [`Supervisor`](crate::Supervisor) commands, from any thread. Clones are the same way.
#[derive(Clone, Debug)]
pub struct Commander {
    requests: Sender<Asked>,
    wake: Arc<EventFd>,
}

/// A request, and where its response goes.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    responses: Sender<Response>,
}

/// Both ends, and who waits for what to be done.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) commander: Commander,
    pub(super) received: Receiver<Asked>,
    pub(super) pending: Vec<Pending>,
}

/// A request that is being carried out.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) asked: Asked,
    pub(super) until: Until,
}

/// What completes a request.
#[derive(Debug)]
pub(super) enum Until {
    /// The machine is paused, or running again.
    StateReached,
    /// The device's thread has answered.
    Device(Receiver<Result<Reply, DeviceError>>),
}

impl Commander {
    /// Asks for something. The response comes when it is done or can't be; `responses` is dropped without one if the supervisor
    /// has gone.
    pub fn send(&self, request: Request, responses: Sender<Response>) {
        if self.requests.send(Asked { request, responses }).is_ok() {
            // Can't be full: the counter would have to reach 2^64 - 1.
            let _ = self.wake.write(1);
        }
    }
}

impl Requests {
    /// Has the event loop look for requests once more.
    pub(super) fn look_again(&self) {
        // Can't be full: the counter would have to reach 2^64 - 1.
        let _ = self.commander.wake.write(1);
    }

    pub(super) fn new(wake: Arc<EventFd>) -> Self {
        let (requests, received) = channel();
        Self { commander: Commander { requests, wake }, received, pending: Vec::new() }
    }
}

impl Asked {
    pub(super) fn answer(self, answer: Answer) {
        // Whoever asked may have gone.
        let _ = self.responses.send(Response { id: self.request.id, answer });
    }
}
