//! Interrupts to the driver.

/// Interrupts from a device to its driver, as implemented by the transport.
pub trait Interrupt: Send + Sync {
    /// Chains of queue `index` were used.
    fn queue(&self, index: usize);

    /// The configuration space, or DEVICE_NEEDS_RESET, has changed.
    fn config(&self);

    /// The device was reset: pending interrupts are dropped.
    fn reset(&self);
}
