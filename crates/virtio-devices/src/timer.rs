//! A timer for epoll.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use vmm_virtio::Allow;

/// The system calls of a thread with a timer.
pub(crate) const TIMER_CALLS: &[Allow] = &[Allow::call(libc::SYS_timerfd_settime)];

/// A timer, initially disarmed (timerfd_create(2)).
#[derive(Debug)]
pub(crate) struct Timer(TimerFd);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        // Non-blocking: if it is set again after epoll reported it, there is nothing to read.
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Becomes readable once after `wait`, which must not be zero.
    pub(crate) fn once(&self, wait: Duration) -> io::Result<()> {
        self.set(Expiration::OneShot(wait.into()))
    }

    /// Becomes readable periodically.
    pub(crate) fn every(&self, pause: Duration) -> io::Result<()> {
        self.set(Expiration::Interval(pause.into()))
    }

    /// Makes it unreadable until it expires again.
    pub(crate) fn acknowledge(&self) {
        // Non-blocking; the count doesn't matter.
        let _ = self.0.wait();
    }

    fn set(&self, expiration: Expiration) -> io::Result<()> {
        Ok(self.0.set(expiration, TimerSetTimeFlags::empty())?)
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
