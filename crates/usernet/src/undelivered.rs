//! Data that the guest regards as sent and the host hasn't taken.

use std::net::SocketAddr;

/// Data of a TCP connection that was acknowledged to the guest and that the host's socket hasn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndeliveredTcp {
    /// The guest's end.
    pub guest: SocketAddr,
    /// The other end, as the guest sees it.
    pub remote: SocketAddr,
    /// Length in bytes.
    pub len: usize,
}
