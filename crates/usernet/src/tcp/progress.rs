//! How much of what a host socket has taken its peer's kernel has received (tcp(7), TCP_INFO).

use std::os::fd::OwnedFd;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};

/// Length of struct tcp_info up to `tcpi_bytes_acked` in bytes (include/uapi/linux/tcp.h, Linux 4.1).
const INFO_LEN: usize = 128;
/// Offset of `tcpi_bytes_acked`.
const BYTES_ACKED: usize = 120;

sockopt_impl!(TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u8; INFO_LEN]);

/// Number of bytes of a connection that its peer has acknowledged. Includes a SYN that was sent by `connect`,
/// and a FIN. `None` if the host doesn't count them.
pub(super) fn acknowledged(socket: &OwnedFd) -> Option<u64> {
    let info = getsockopt(socket, TcpInfo).ok()?;
    let (bytes, _) = info[BYTES_ACKED..].split_first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}
