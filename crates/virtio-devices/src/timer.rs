//! A timer that epoll waits for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timer, not set at first (timerfd_create(2)).
#[derive(Debug)]
pub(crate) struct Timer(TimerFd);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        // Non-blocking: set anew after epoll saw it, it has nothing to read.
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Can be read once, after `wait`, which isn't zero.
    pub(crate) fn once(&self, wait: Duration) -> io::Result<()> {
        self.set(Expiration::OneShot(wait.into()))
    }

    /// Can be read again and again.
    pub(crate) fn every(&self, pause: Duration) -> io::Result<()> {
        self.set(Expiration::Interval(pause.into()))
    }

    /// Can't be read until it expires again.
    pub(crate) fn acknowledge(&self) {
        // Non-blocking; how often doesn't matter.
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
