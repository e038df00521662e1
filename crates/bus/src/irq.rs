//! A device's wire to the interrupt controller.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// An edge-triggered interrupt line.
///
/// The device end calls [`trigger`](Self::trigger); the other end is an eventfd that KVM (irqfd) or a test
/// listens to. Clones are the same line.
#[derive(Clone, Debug)]
pub struct IrqLine(Arc<EventFd>);

impl IrqLine {
    /// A line that nobody listens to yet.
    ///
    /// # Errors
    /// The host is out of file descriptors or of memory.
    pub fn new() -> io::Result<Self> {
        EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC).map(|fd| Self(Arc::new(fd)))
    }

    /// Raises one edge. Edges that the listener hasn't seen yet merge into one.
    ///
    /// # Errors
    /// The counter of the eventfd is at its maximum, which takes 2^64 - 2 unseen edges.
    pub fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }

    /// The listener's end.
    pub fn event(&self) -> &EventFd {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn irq_two_triggers_merge_into_one_event() {
        let line = IrqLine::new().unwrap();
        line.trigger().unwrap();
        line.clone().trigger().unwrap();
        assert_eq!(line.event().read().unwrap(), 2, "both edges were counted");
        assert!(line.event().read().is_err(), "and taken by one read");
    }
}
