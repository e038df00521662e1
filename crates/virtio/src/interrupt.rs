//! Interrupts to the driver.

use std::sync::Arc;

use vmm_bus::EventFd;
use vmm_sandbox::Allow;

/// Interrupts from a device to its driver, as implemented by the transport.
pub trait Interrupt: Send + Sync {
    /// Chains of queue `index` were used.
    fn queue(&self, index: usize);

    /// An eventfd that interrupts the driver as [`queue`](Self::queue) does when it is written, for servers outside of this process
    /// such as the host's kernel. `None` if the transport has none.
    fn line(&self, index: usize) -> Option<Arc<EventFd>> {
        let _ = index;
        None
    }

    /// The configuration space, or DEVICE_NEEDS_RESET, has changed.
    fn config(&self);

    /// The device was reset: pending interrupts are dropped.
    fn reset(&self);

    /// The system calls of a thread that interrupts, besides writing an eventfd.
    fn calls(&self) -> &'static [Allow] {
        &[]
    }
}
