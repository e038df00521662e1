//! Waiting for an eventfd, until a deadline.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// How long a device may take for what takes it microseconds; long, because a machine that runs many tests is slow.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// An eventfd that somebody waits for.
pub(crate) struct Waiter {
    epoll: Epoll,
    event: EventFd,
}

impl Waiter {
    pub(crate) fn new(event: &EventFd) -> Self {
        let event = event.try_clone().expect("a descriptor");
        let epoll = Epoll::new().expect("a descriptor");
        let readable = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, event.as_raw_fd(), readable).expect("an eventfd can be waited for");
        Self { epoll, event }
    }

    /// Takes what was written, if there is something. `None` otherwise.
    pub(crate) fn take(&self) -> Option<u64> {
        self.event.read().ok()
    }

    /// Waits until it is written, and takes that. False if the deadline passes first.
    #[must_use]
    pub(crate) fn wait(&self, until: Instant) -> bool {
        loop {
            if self.take().is_some() {
                return true;
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
            // Up to the next millisecond, so that a last part of one isn't a busy loop. An error is an interrupted call.
            let timeout = left.as_millis() as i32 + 1;
            let _ = self.epoll.wait(timeout, &mut [EpollEvent::default()]);
        }
    }
}
