//! A connection that a guest regards as open, for a network that doesn't have it.

use std::net::SocketAddr;

/// A TCP connection of the guest, as far as a reset of it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTcp {
    /// The guest's end.
    pub guest: SocketAddr,
    /// The other end, as the guest sees it.
    pub remote: SocketAddr,
    /// Sequence number of the next byte to the guest. The guest ignores a reset with another one (RFC 5961 §3.2).
    pub next: u32,
    /// Sequence number of the next byte from the guest.
    pub wanted: u32,
}
