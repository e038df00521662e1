//! The epoll registration of one descriptor.

use std::os::fd::AsRawFd;

use event_manager::{Error, EventOps, EventSet, Events};

/// The epoll registration of one descriptor.
#[derive(Debug)]
pub(crate) struct Watch {
    token: u32,
    events: EventSet,
    registered: bool,
    failure: Option<Error>,
}

/// How the next event of a descriptor will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArmOutcome {
    /// By epoll.
    Waiting,
    /// Not at all: epoll refuses the file (EPERM), because a regular file or /dev/null is always ready.
    AlwaysReady,
    /// Not at all, see [`Watch::take_failure`].
    Failed,
}

impl Watch {
    pub(crate) fn new(token: u32, events: EventSet) -> Self {
        Self { token, events, registered: false, failure: None }
    }

    /// Registers `fd`, unless it is registered.
    pub(crate) fn arm(&mut self, fd: &impl AsRawFd, ops: &mut EventOps<'_>) -> ArmOutcome {
        if self.registered {
            return ArmOutcome::Waiting;
        }
        match ops.add(Events::with_data(fd, self.token, self.events)) {
            Ok(()) => {
                self.registered = true;
                ArmOutcome::Waiting
            }
            Err(Error::Epoll(errno)) if errno.errno() == libc::EPERM => ArmOutcome::AlwaysReady,
            Err(error) => {
                self.failure = Some(error);
                ArmOutcome::Failed
            }
        }
    }

    /// Why the descriptor couldn't be registered, for want of memory or watches: it causes no events.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Forgets the registration, after the source has left its event loop.
    pub(crate) fn forget(&mut self) {
        self.registered = false;
    }

    /// Unregisters `fd`. Must come before the descriptor is closed: EPOLL_CTL_DEL needs an open one.
    pub(crate) fn disarm(&mut self, fd: &impl AsRawFd, ops: &mut EventOps<'_>) {
        if self.registered {
            self.registered = false;
            if let Err(error) = ops.remove(Events::empty(fd)) {
                tracing::error!("can't remove a descriptor from epoll: {error}");
            }
        }
    }
}

/// Logs that a source can't watch a descriptor while the machine runs, which goes on without its events.
pub(crate) fn log(failure: Option<Error>) {
    if let Some(error) = failure {
        tracing::error!("can't add a descriptor to epoll: {error}");
    }
}
