//! Interrupt lines.

use std::io;
use std::sync::Arc;

use crate::EventFd;

/// An edge-triggered interrupt line.
///
/// The device calls [`trigger`](Self::trigger); the other end is an eventfd read by KVM (irqfd) or a test.
/// Clones are the same line.
#[derive(Clone, Debug)]
pub struct IrqLine(Arc<EventFd>);

impl IrqLine {
    /// Creates a line without a listener.
    ///
    /// # Errors
    /// The host is out of file descriptors or memory.
    pub fn new() -> io::Result<Self> {
        EventFd::new().map(|event| Self(Arc::new(event)))
    }

    /// Raises an edge. Edges that the listener hasn't read yet are merged.
    ///
    /// # Errors
    /// The eventfd's counter is at its maximum, after 2^64 - 2 unread edges.
    pub fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }

    /// The eventfd, non-blocking, for the listener: `Vm::connect_irq` of vmm-kvm takes it.
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
