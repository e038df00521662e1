//! One descriptor's place in epoll.

use std::os::fd::AsRawFd;

use event_manager::{Error, EventOps, EventSet, Events};

/// Whether the event loop waits for a descriptor.
#[derive(Debug)]
pub(crate) struct Watch {
    token: u32,
    events: EventSet,
    registered: bool,
}

/// Where an event will come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Armed {
    /// From epoll.
    Waiting,
    /// From nowhere: the file, a regular one or /dev/null, is always ready.
    AlwaysReady,
}

impl Watch {
    pub(crate) fn new(token: u32, events: EventSet) -> Self {
        Self { token, events, registered: false }
    }

    /// Waits for `fd` from now on.
    pub(crate) fn arm(&mut self, fd: &impl AsRawFd, ops: &mut EventOps<'_>) -> Armed {
        if self.registered {
            return Armed::Waiting;
        }
        match ops.add(Events::with_data(fd, self.token, self.events)) {
            Ok(()) => {
                self.registered = true;
                Armed::Waiting
            }
            Err(Error::Epoll(errno)) if errno.errno() == libc::EPERM => Armed::AlwaysReady,
            Err(error) => {
                // Out of memory or of watches: this source falls silent, the machine goes on.
                tracing::error!("epoll refuses a descriptor: {error}");
                Armed::Waiting
            }
        }
    }

    /// The event loop that waited is no more.
    pub(crate) fn forget(&mut self) {
        self.registered = false;
    }

    /// Waits no more. Must come before the descriptor is closed: epoll forgets only what it can look up.
    pub(crate) fn disarm(&mut self, fd: &impl AsRawFd, ops: &mut EventOps<'_>) {
        if self.registered {
            self.registered = false;
            if let Err(error) = ops.remove(Events::empty(fd)) {
                tracing::error!("epoll keeps a descriptor: {error}");
            }
        }
    }
}
