//! The device side of the bus, and what a write may request from the machine.

use std::sync::Arc;

/// A device with registers on the bus.
///
/// Methods take `&self` and are called by vCPU threads concurrently. A device locks only what it needs,
/// briefly, and never across host I/O. Offsets, widths and values come from the guest and must not be
/// trusted.
pub trait BusDevice: Send + Sync {
    /// Reads the registers at `offset` into `data`, which the bus has filled with 0xff.
    ///
    /// `offset` is relative to the start of the device's range, and `offset + data.len()` stays within the
    /// range. `data` has 1, 2, 4 or 8 bytes. A device leaves bytes that it doesn't decode unchanged: an
    /// unclaimed PC port reads as all ones.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Writes `data` to the registers at `offset`, with the same guarantees as [`read`](Self::read).
    ///
    /// The access is complete when this returns, whatever the outcome.
    fn write(&self, offset: u64, data: &[u8]) -> Outcome;

    /// Whether a vCPU that received [`Outcome::Hold`] must keep waiting. Called when the vCPU is woken, which
    /// another device may have caused.
    fn is_holding(&self) -> bool {
        false
    }
}

/// A device that somebody else has too, such as the host's side of a serial line.
impl<T: BusDevice + ?Sized> BusDevice for Arc<T> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        T::read(self, offset, data);
    }
    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        T::write(self, offset, data)
    }
    fn is_holding(&self) -> bool {
        T::is_holding(self)
    }
}

/// What a completed write requests from its dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a write may end the machine or hold the vCPU"]
pub enum Outcome {
    /// Nothing.
    Done,
    /// The device has accepted the data but has no room for more: don't enter the guest on this vCPU until
    /// the device's owner wakes it. This applies back-pressure without losing data, holding a lock or
    /// busy-waiting.
    Hold,
    /// End the machine.
    End(SystemEvent),
}

/// How a guest ends its machine. The value is passed unchanged from the device to the exit code. On other architectures KVM
/// reports such events itself (KVM api.rst KVM_EXIT_SYSTEM_EVENT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemEvent {
    /// Power off.
    PowerOff,
    /// Reset, like the reset button.
    Reset,
    /// The guest's kernel has panicked.
    Panic,
    /// Exit the monitor with this code.
    Exit(u8),
}
