//! The eventfds by which the two ends of a port wake each other.

use std::io;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// A non-blocking eventfd.
pub(super) fn bell() -> io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC)
}
