//! Data that the guest regards as sent and the host's peer hasn't received.

use std::net::SocketAddr;

/// Data of a TCP connection that was acknowledged to the guest and that the host's peer hasn't acknowledged, or, while
/// the guest runs, that the host's socket hasn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndeliveredTcp {
    /// The guest's end.
    pub guest: SocketAddr,
    /// The other end, as the guest sees it.
    pub remote: SocketAddr,
    /// Length in bytes. When only the end of the stream remains, that counts as one.
    pub len: usize,
}
