//! One descriptor for the sockets of all connections, which the device's thread watches.
//!
//! Edge-triggered: an event reports a change since the last one, and sockets are used until they would block.
//! So a connection that can't make progress, such as one without credit, costs nothing.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Events per call; the rest follows in the next turn.
const EVENTS: usize = 64;
const EVERYTHING: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// A separate epoll. A closed socket is removed automatically, because its descriptors aren't duplicated.
#[derive(Debug)]
pub(super) struct Poll(OwnedFd);

/// Event of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) token: usize,
    /// Both directions are closed.
    pub(super) is_hung_up: bool,
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Reports `token` when `socket` becomes readable, writable or closed; immediately if it is already.
    ///
    /// # Errors
    /// The host is out of memory or watches.
    pub(super) fn add(&self, socket: &impl AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, EventData::new_u64(token as u64), EVERYTHING)?)
    }

    /// Changes a socket's token, and reports its current state again.
    ///
    /// # Errors
    /// The socket isn't in the poll.
    pub(super) fn rename(&self, socket: &impl AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::modify(&self.0, socket, EventData::new_u64(token as u64), EVERYTHING)?)
    }

    /// Pending events, without blocking.
    pub(super) fn take(&self) -> Vec<Readiness> {
        self.take_within(Duration::ZERO)
    }

    /// Pending events. Waits for the first one for at most `patience`.
    pub(super) fn take_within(&self, patience: Duration) -> Vec<Readiness> {
        let patience =
            Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS];
        // Empty if interrupted by a signal: the descriptor stays readable.
        let Ok((events, _)) = epoll::wait(&self.0, &mut events[..], Some(&patience)) else {
            return Vec::new();
        };
        let readiness = |event: &Event| Readiness {
            token: event.data.u64() as usize,
            is_hung_up: { event.flags }.intersects(EventFlags::HUP | EventFlags::ERR),
        };
        events.iter().map(readiness).collect()
    }
}

impl AsRawFd for Poll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
