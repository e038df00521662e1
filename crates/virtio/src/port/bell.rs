//! The eventfds by which the two ends of a port wake each other.

use std::io;

use vmm_bus::EventFd;

/// A non-blocking eventfd.
pub(super) fn bell() -> io::Result<EventFd> {
    EventFd::new()
}
