//! TCP and vsock endpoints, written as `tcp:10.0.2.2:80` or `vsock:2:80`.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, VsockAddr};
use rustix::net::SocketFlags;

/// VMADDR_CID_ANY (vsock(7)).
const ANY_CID: u32 = u32::MAX;

/// A connection of either kind. Reading, writing and shutting down are the same system calls for all stream sockets, and
/// [`UnixStream`] is the standard library's type that never interprets an address.
pub(crate) type Stream = UnixStream;

/// Connects to the endpoint `name`.
pub(crate) fn connect(name: &str) -> io::Result<Stream> {
    match name.split_once(':') {
        Some(("tcp", address)) => Ok(Stream::from(OwnedFd::from(TcpStream::connect(address)?))),
        Some(("vsock", address)) => {
            let (cid, port) = address.split_once(':').ok_or_else(|| unknown(name))?;
            let address = VsockAddr::new(number(cid)?, number(port)?);
            let socket = vsock()?;
            socket::connect(socket.as_raw_fd(), &address)?;
            Ok(Stream::from(socket))
        }
        _ => Err(unknown(name)),
    }
}

/// A listening socket of either kind.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Vsock(OwnedFd),
}

impl Listener {
    /// Listens at `name`, which is `tcp:PORT` or `vsock:PORT`.
    pub(crate) fn bind(name: &str) -> io::Result<Self> {
        match name.split_once(':') {
            Some(("tcp", port)) => Ok(Self::Tcp(TcpListener::bind(("::", number(port)?))?)),
            Some(("vsock", port)) => {
                let socket = vsock()?;
                socket::bind(socket.as_raw_fd(), &VsockAddr::new(ANY_CID, number(port)?))?;
                socket::listen(&socket, Backlog::MAXCONN)?;
                Ok(Self::Vsock(socket))
            }
            _ => Err(unknown(name)),
        }
    }

    pub(crate) fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => Ok(Stream::from(OwnedFd::from(listener.accept()?.0))),
            Self::Vsock(socket) => {
                // Without returning the address, since rustix doesn't know addresses of this kind.
                Ok(Stream::from(rustix::net::accept_with(socket, SocketFlags::CLOEXEC)?))
            }
        }
    }
}

fn vsock() -> io::Result<OwnedFd> {
    Ok(socket::socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| unknown(text))
}

fn unknown(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} isn't an endpoint"))
}
