//! A flow of any kind.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::allow::Protocol;
use crate::host::{self, SocketEvents};
use crate::packet::Packet;
use crate::ping::Ping;
use crate::pull_outcome::{Closing, PullOutcome};
use crate::shared::Shared;
use crate::tcp::Tcp;
use crate::udp::{ForwardedUdp, Udp};
use crate::undelivered::UndeliveredTcp;

/// The addresses that identify a flow, as the guest sees them. For echo requests the ports are the identifier
/// and 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) protocol: Protocol,
    pub(crate) guest: SocketAddr,
    pub(crate) remote: SocketAddr,
}

#[derive(Debug)]
pub(crate) enum NetworkFlow {
    Tcp(Box<Tcp>),
    Udp(Udp),
    ForwardedUdp(ForwardedUdp),
    Ping(Ping),
}

impl NetworkFlow {
    /// Handles events of the host's socket.
    pub(crate) fn handle_events(&mut self, events: SocketEvents, shared: &mut Shared) -> Result<(), Closing> {
        match self {
            NetworkFlow::Tcp(tcp) => tcp.handle_events(events, shared),
            NetworkFlow::Udp(udp) => {
                udp.handle_events();
                Ok(())
            }
            NetworkFlow::ForwardedUdp(_) => Ok(()),
            NetworkFlow::Ping(ping) => {
                ping.handle_events();
                Ok(())
            }
        }
    }

    /// Handles a packet from the guest.
    pub(crate) fn packet(&mut self, packet: &Packet<'_>, shared: &mut Shared) -> Result<(), Closing> {
        match self {
            NetworkFlow::Tcp(tcp) => return tcp.segment(packet, shared),
            NetworkFlow::Udp(udp) => udp.datagram(packet, shared),
            NetworkFlow::ForwardedUdp(forwarded) => forwarded.datagram(packet),
            NetworkFlow::Ping(ping) => ping.request(packet, shared),
        }
        Ok(())
    }

    /// Writes the next frame for the guest to `into`.
    pub(crate) fn pull(&mut self, into: &mut [u8], shared: &mut Shared) -> PullOutcome {
        match self {
            NetworkFlow::Tcp(tcp) => tcp.pull(into, shared),
            NetworkFlow::Udp(udp) => udp.pull(into, shared),
            NetworkFlow::ForwardedUdp(forwarded) => forwarded.pull(),
            NetworkFlow::Ping(ping) => ping.pull(into, shared),
        }
    }

    /// Whether the flow was used since the last call. `None` for a connection, which isn't replaced by
    /// another flow.
    pub(crate) fn take_used(&mut self) -> Option<bool> {
        match self {
            NetworkFlow::Tcp(_) => None,
            NetworkFlow::Udp(udp) => Some(udp.age.take_used()),
            NetworkFlow::ForwardedUdp(forwarded) => Some(forwarded.age.take_used()),
            NetworkFlow::Ping(ping) => Some(ping.age.take_used()),
        }
    }

    /// The guest is gone. Returns whether data that it regards as sent remains to be delivered.
    pub(crate) fn forget_guest(&mut self) -> bool {
        match self {
            NetworkFlow::Tcp(tcp) => tcp.forget_guest(),
            NetworkFlow::Udp(_) | NetworkFlow::ForwardedUdp(_) | NetworkFlow::Ping(_) => false,
        }
    }

    /// Passes data that was acknowledged to the guest to the host, without blocking, and returns what remains.
    pub(crate) fn deliver(&mut self) -> Option<UndeliveredTcp> {
        match self {
            NetworkFlow::Tcp(tcp) => tcp.deliver(),
            NetworkFlow::Udp(_) | NetworkFlow::ForwardedUdp(_) | NetworkFlow::Ping(_) => None,
        }
    }

    pub(crate) fn end(self, how: Closing, shared: &mut Shared) {
        if let NetworkFlow::Tcp(tcp) = self {
            let socket: OwnedFd = tcp.into_host(shared);
            if how == Closing::Reset {
                host::reset(socket);
            }
        }
    }
}
