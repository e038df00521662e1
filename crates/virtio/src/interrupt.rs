//! How a device calls its driver.

/// The wires from a device to its driver, as its transport has them.
pub trait Interrupt: Send + Sync {
    /// Chains of the queue with this number were used.
    fn queue(&self, index: usize);

    /// The configuration space, or DEVICE_NEEDS_RESET, has changed.
    fn config(&self);

    /// The device was reset: what the driver hasn't seen is void.
    fn reset(&self);
}
