//! The interfaces of devices towards the host.

use std::fmt;

use vmm_bus::EventFd;
use vmm_bus::Output;

/// The host's end of a serial line. No method blocks, and no data is lost in either direction.
pub trait SerialLine: fmt::Debug + Send + Sync {
    /// The bytes that the guest has written.
    fn output(&self) -> &Output;

    /// Number of bytes that [`send`](Self::send) would accept now. If 0, [`wants_input`](Self::wants_input) becomes readable when
    /// this changes.
    fn room(&self) -> usize;

    /// Sends `bytes` to the guest and returns how many were accepted. If not all, [`wants_input`](Self::wants_input) becomes
    /// readable when there is room for more.
    fn send(&self, bytes: &[u8]) -> usize;

    /// The bytes that were sent but not read by the guest, for the machine that follows a reset.
    fn unread(&self) -> Vec<u8>;

    /// A non-blocking eventfd, readable when the guest has made room for input that didn't fit before.
    fn wants_input(&self) -> &EventFd;
}

/// The host's side of a power button.
pub trait PowerButton: fmt::Debug + Send + Sync {
    /// Presses the button once. Returns `false` if the guest isn't interrupted, because it hasn't enabled the button's event.
    #[must_use]
    fn press(&self) -> bool;
}
