//! What of a device is the host's to use.

use std::fmt;

use vmm_bus::EventFd;
use vmm_bus::Output;

/// The host's end of a serial line. Nothing is lost in either direction, and nothing waits.
pub trait SerialLine: fmt::Debug + Send + Sync {
    /// What the guest wrote.
    fn output(&self) -> &Output;

    /// Bytes that [`send`](Self::send) would take now. If 0, [`wants_input`](Self::wants_input) tells when to look again.
    fn room(&self) -> usize;

    /// Types `bytes` at the guest and returns how many it took. If not all, [`wants_input`](Self::wants_input) tells when to go
    /// on.
    fn send(&self, bytes: &[u8]) -> usize;

    /// What was sent and the guest hasn't read: a reset takes it away from the guest.
    fn unread(&self) -> Vec<u8>;

    /// A non-blocking eventfd, readable when the guest has made room for input that didn't fit before.
    fn wants_input(&self) -> &EventFd;
}

/// A power button.
pub trait PowerButton: fmt::Debug + Send + Sync {
    /// Presses it once. `false` means that the guest doesn't listen to it, and nothing will come of it.
    #[must_use]
    fn press(&self) -> bool;
}
