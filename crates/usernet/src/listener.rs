//! Forwarded ports.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, SocketFlags, SocketType, sockopt};

use crate::allow::Protocol;
use crate::forward::Forward;
use crate::host;
use crate::table::Token;

/// Maximum number of connections that wait in the host to be accepted.
const BACKLOG: i32 = 128;

/// Whether another process took the port while this one didn't listen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Loss {
    None,
    Unreported(Errno),
    Reported,
}

/// A forwarded port.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) protocol: Protocol,
    pub(crate) guest_port: u16,
    pub(crate) socket: Arc<OwnedFd>,
    /// Whether connections are accepted.
    is_open: bool,
    /// As the user wrote it.
    text: String,
    loss: Loss,
    /// Why the host couldn't accept a connection; only the first time.
    lack: Option<Errno>,
    has_lacked: bool,
    /// As far as known; the kernel reports it once.
    pub(crate) readable: bool,
    /// Flows of UDP clients.
    pub(crate) clients: HashMap<SocketAddr, Token>,
}

/// Whether the host is out of descriptors or memory. The connection stays in the backlog.
pub(crate) fn is_lack(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}

/// The limit to raise.
fn remedy(lack: Errno) -> &'static str {
    match lack {
        Errno::MFILE => "; raise the limit of open files (ulimit -n)",
        Errno::NFILE => "; raise the host's limit of open files (sysctl fs.file-max)",
        _ => "",
    }
}

impl Listener {
    pub(crate) fn bind(forward: &Forward) -> Result<Self, Errno> {
        let address = forward.listen;
        let is_tcp = forward.protocol == Protocol::Tcp;
        let socket = host::socket(address.ip(), if is_tcp { SocketType::STREAM } else { SocketType::DGRAM })?;
        if address.is_ipv6() {
            // Another process may use the same IPv4 port.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if is_tcp {
            // A previous monitor's connections in TIME-WAIT must not prevent listening.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        if is_tcp {
            rustix::net::listen(&socket, BACKLOG)?;
        }
        Ok(Self {
            protocol: forward.protocol,
            guest_port: forward.guest_port,
            socket: Arc::new(socket),
            is_open: true,
            text: forward.text.clone(),
            loss: Loss::None,
            lack: None,
            has_lacked: false,
            readable: false,
            clients: HashMap::new(),
        })
    }

    /// Accepts connections, or refuses them by not listening: a bound socket keeps the port. No effect on
    /// UDP.
    pub(crate) fn set_open(&mut self, is_open: bool) {
        if self.protocol != Protocol::Tcp || is_open == self.is_open {
            return;
        }
        if !is_open {
            // On Linux, shutting down a listening socket stops it from listening and resets waiting
            // connections (net/ipv4/af_inet.c, inet_shutdown).
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Read);
            (self.is_open, self.readable) = (false, false);
            return;
        }
        match rustix::net::listen(&self.socket, BACKLOG) {
            Ok(()) => self.is_open = true,
            // Two bound sockets that don't listen may share a port; the other one listened first.
            Err(error) if self.loss == Loss::None => self.loss = Loss::Unreported(error),
            Err(_) => {}
        }
    }

    /// Reports once that the port was lost, and once that the host couldn't accept a connection.
    pub(crate) fn take_notice(&mut self) -> Option<String> {
        if let Some(error) = self.lack.take() {
            return Some(format!(
                "forward {:?}: can't accept a connection, which waits until it can be: {error}{}",
                self.text,
                remedy(error)
            ));
        }
        let Loss::Unreported(error) = self.loss else { return None };
        self.loss = Loss::Reported;
        Some(format!(
            "forward {:?} has stopped working: can't listen: {error}: choose another port, or stop what listens there",
            self.text
        ))
    }

    /// Notes that a client may be waiting, unless the listener is closed.
    pub(crate) fn handle_events(&mut self, readable: bool) {
        self.readable |= readable && self.is_open;
    }

    /// Accepts a waiting connection.
    pub(crate) fn accept(&mut self) -> Result<OwnedFd, Errno> {
        let accepted = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        // EINVAL: the socket couldn't listen again.
        if matches!(accepted, Err(Errno::AGAIN | Errno::INVAL)) {
            self.readable = false;
        }
        if let Err(error) = accepted
            && is_lack(error)
            && !std::mem::replace(&mut self.has_lacked, true)
        {
            self.lack = Some(error);
        }
        accepted
    }

    /// Receives a datagram into `room` and returns its length and sender. `None` if there is none or it is
    /// too long.
    pub(crate) fn receive(&mut self, room: &mut [u8]) -> Option<(usize, SocketAddr)> {
        match rustix::net::recvfrom(&self.socket, &mut *room, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((_, len, Some(from))) if len <= room.len() => Some((len, from.try_into().ok()?)),
            Ok(_) => None,
            Err(error) => {
                // ICMP errors for earlier replies are reported here, once each.
                self.readable = error != Errno::AGAIN;
                None
            }
        }
    }
}
