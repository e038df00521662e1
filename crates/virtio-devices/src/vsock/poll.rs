//! The sockets of all connections behind one descriptor, which the device's thread waits for.
//!
//! Edge-triggered: an event says that something has changed since the last one, and who works with a socket goes on until it
//! would block. So a connection that nobody can do anything for, such as one without credit, costs no turn.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Events taken at once; the rest comes with the next turn.
const EVENTS: usize = 64;
const EVERYTHING: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// An epoll of its own. A socket that is closed leaves it, because nobody has a second descriptor of it.
#[derive(Debug)]
pub(super) struct Poll(OwnedFd);

/// What happened to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) token: usize,
    /// Both directions are over.
    pub(super) is_hung_up: bool,
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Has `token` told when `socket` can be read, or written, or is over; at once, if it is so.
    ///
    /// # Errors
    /// The host is out of memory, or of watches.
    pub(super) fn add(&self, socket: &impl AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, EventData::new_u64(token as u64), EVERYTHING)?)
    }

    /// Has another token told for a socket, also for what was told before.
    ///
    /// # Errors
    /// It isn't there.
    pub(super) fn rename(&self, socket: &impl AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::modify(&self.0, socket, EventData::new_u64(token as u64), EVERYTHING)?)
    }

    /// What has happened, without waiting for it.
    pub(super) fn take(&self) -> Vec<Readiness> {
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS];
        // Nothing, when a signal came first: the descriptor stays readable.
        let Ok((events, _)) = epoll::wait(&self.0, &mut events[..], Some(&AT_ONCE)) else {
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
