//! A flow of any kind.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::allow::Protocol;
use crate::host::{self, News};
use crate::packet::Packet;
use crate::ping::Ping;
use crate::pulled::{End, Pulled};
use crate::shared::Shared;
use crate::tcp::Tcp;
use crate::udp::{Udp, Visitor};

/// What tells a flow from others, in the guest's eyes. Of an echo, the ports are its identifier and 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) protocol: Protocol,
    pub(crate) guest: SocketAddr,
    pub(crate) remote: SocketAddr,
}

#[derive(Debug)]
pub(crate) enum Flow {
    Tcp(Box<Tcp>),
    Udp(Udp),
    Visitor(Visitor),
    Ping(Ping),
}

impl Flow {
    /// The host's socket has news.
    pub(crate) fn news(&mut self, news: News, shared: &mut Shared) -> Result<(), End> {
        match self {
            Flow::Tcp(tcp) => tcp.news(news, shared),
            Flow::Udp(udp) => {
                udp.news();
                Ok(())
            }
            Flow::Visitor(_) => Ok(()),
            Flow::Ping(ping) => {
                ping.news();
                Ok(())
            }
        }
    }

    /// A packet of the guest's that belongs to it.
    pub(crate) fn packet(&mut self, packet: &Packet<'_>, shared: &mut Shared) -> Result<(), End> {
        match self {
            Flow::Tcp(tcp) => return tcp.segment(packet, shared),
            Flow::Udp(udp) => udp.datagram(packet, shared),
            Flow::Visitor(visitor) => visitor.datagram(packet),
            Flow::Ping(ping) => ping.request(packet, shared),
        }
        Ok(())
    }

    /// Writes the next frame for the guest to `into`.
    pub(crate) fn pull(&mut self, into: &mut [u8], shared: &mut Shared) -> Pulled {
        match self {
            Flow::Tcp(tcp) => tcp.pull(into, shared),
            Flow::Udp(udp) => udp.pull(into, shared),
            Flow::Visitor(visitor) => visitor.pull(),
            Flow::Ping(ping) => ping.pull(into, shared),
        }
    }

    /// Whether it was used since this was asked the last time. `None`: it is a connection, which isn't given up for
    /// another flow.
    pub(crate) fn take_used(&mut self) -> Option<bool> {
        match self {
            Flow::Tcp(_) => None,
            Flow::Udp(udp) => Some(udp.age.take_used()),
            Flow::Visitor(visitor) => Some(visitor.age.take_used()),
            Flow::Ping(ping) => Some(ping.age.take_used()),
        }
    }

    pub(crate) fn end(self, how: End, shared: &mut Shared) {
        if let Flow::Tcp(tcp) = self {
            let socket: OwnedFd = tcp.into_host(shared);
            if how == End::Reset {
                host::reset(socket);
            }
        }
    }
}
