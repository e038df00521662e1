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
    /// Number of bytes that the host's socket hasn't taken. If the network is dropped with any, the connection is reset, and
    /// those in `sent_len` are lost too.
    pub len: usize,
    /// Number of bytes that the host's socket has taken and the peer hasn't acknowledged. When only the end of the stream
    /// remains, that counts as one. If the network is dropped with `len` 0, the host's kernel goes on sending them.
    pub sent_len: usize,
}
