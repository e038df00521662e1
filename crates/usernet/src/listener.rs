//! The host's ports that lead to the guest.

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

/// Connections that wait in the host until we take them.
const BACKLOG: i32 = 128;

/// Whether a port of ours became another's while we didn't listen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Loss {
    None,
    Untold(Errno),
    Told,
}

/// One forwarded port.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) protocol: Protocol,
    pub(crate) guest_port: u16,
    pub(crate) socket: Arc<OwnedFd>,
    /// Connections are taken.
    is_open: bool,
    /// As the user wrote it.
    text: String,
    loss: Loss,
    /// As far as we know: the kernel tells it once.
    pub(crate) readable: bool,
    /// The flows of UDP's clients.
    pub(crate) clients: HashMap<SocketAddr, Token>,
}

impl Listener {
    pub(crate) fn bind(forward: &Forward) -> Result<Self, Errno> {
        let address = forward.listen;
        let is_tcp = forward.protocol == Protocol::Tcp;
        let socket = host::socket(address.ip(), if is_tcp { SocketType::STREAM } else { SocketType::DGRAM })?;
        if address.is_ipv6() {
            // The same port of IPv4 may be somebody else's.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if is_tcp {
            // Connections of a monitor before this one, in TIME-WAIT, keep nobody from listening.
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
            readable: false,
            clients: HashMap::new(),
        })
    }

    /// Takes connections, or refuses them by not listening: a socket that is bound keeps the port. Of UDP nothing changes.
    pub(crate) fn set_open(&mut self, is_open: bool) {
        if self.protocol != Protocol::Tcp || is_open == self.is_open {
            return;
        }
        if !is_open {
            // To shut a listening socket down is to stop listening, in Linux; who waits is reset (net/ipv4/af_inet.c,
            // inet_shutdown).
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Read);
            (self.is_open, self.readable) = (false, false);
            return;
        }
        match rustix::net::listen(&self.socket, BACKLOG) {
            Ok(()) => self.is_open = true,
            // Two who are bound and don't listen may share a port; the other one was first.
            Err(error) if self.loss == Loss::None => self.loss = Loss::Untold(error),
            Err(_) => {}
        }
    }

    /// That the port was lost, once.
    pub(crate) fn take_notice(&mut self) -> Option<String> {
        let Loss::Untold(error) = self.loss else { return None };
        self.loss = Loss::Told;
        Some(format!(
            "forward {:?} leads nowhere: can't listen: {error}: choose another port, or stop what listens there",
            self.text
        ))
    }

    /// Somebody may wait, unless it is closed.
    pub(crate) fn hear(&mut self, readable: bool) {
        self.readable |= readable && self.is_open;
    }

    /// A connection that waits.
    pub(crate) fn accept(&mut self) -> Result<OwnedFd, Errno> {
        let accepted = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        // The second is that of a socket that couldn't listen again.
        if matches!(accepted, Err(Errno::AGAIN | Errno::INVAL)) {
            self.readable = false;
        }
        accepted
    }

    /// A datagram that waits, into `room`: its length, and who sent it. `None`: there is none, or it was too long.
    pub(crate) fn receive(&mut self, room: &mut [u8]) -> Option<(usize, SocketAddr)> {
        match rustix::net::recvfrom(&self.socket, &mut *room, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((_, len, Some(from))) if len <= room.len() => Some((len, from.try_into().ok()?)),
            Ok(_) => None,
            Err(error) => {
                // An ICMP error of an answer before is told here, once.
                self.readable = error != Errno::AGAIN;
                None
            }
        }
    }
}
