//! Waits for an eventfd with a deadline.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use vmm_bus::EventFd;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Time limit for actions that take microseconds; long, because the tests' machine may be heavily loaded.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// An eventfd that can be waited for.
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

    /// Reads the counter; `None` if it is 0.
    pub(crate) fn take(&self) -> Option<u64> {
        self.event.read().ok()
    }

    /// Waits until the eventfd is written, and reads it. False if the deadline passes first.
    #[must_use]
    pub(crate) fn wait(&self, until: Instant) -> bool {
        loop {
            if self.take().is_some() {
                return true;
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
            // Rounded up, so that the last fraction of a millisecond isn't a busy loop. An error means an
            // interrupted call.
            let timeout = left.as_millis() as i32 + 1;
            let _ = self.epoll.wait(timeout, &mut [EpollEvent::default()]);
        }
    }
}
