//! Unix sockets with names, which never wait.

use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

/// What a name may have, in bytes: sun_path without its NUL (unix(7)).
pub(crate) const NAME_MAX: usize = 107;

pub(crate) const NON_BLOCKING: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Connects to who listens at `path`.
///
/// # Errors
/// Nobody does; EAGAIN if more wait for it than may.
pub(crate) fn connect(path: &Path) -> Result<UnixStream, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, NON_BLOCKING, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}
