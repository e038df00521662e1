//! A flow of either kind, and the words that flows and the network use with each other.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

pub(crate) use crate::host::News;

use crate::allow::Protocol;
use crate::host;
use crate::packet::{Packet, PartialChecksum};
use crate::ping::Ping;
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

/// How a flow's host socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Orderly,
    /// The other end gets a reset.
    Reset,
}

/// What a flow had for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// A frame of this length.
    Frame(usize, Option<PartialChecksum>),
    /// Nothing, but there may be more if it is asked again.
    Again,
    /// Nothing, until there is news, a packet of the guest's or this time.
    Idle(Option<Instant>),
    End(End),
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

/// How long ago a flow without an end of its own was used.
#[derive(Debug)]
pub(crate) struct Age {
    used_at: Instant,
    limit: std::time::Duration,
    was_used: bool,
}

impl Age {
    pub(crate) fn new(limit: std::time::Duration) -> Self {
        Self { used_at: Instant::now(), limit, was_used: true }
    }

    pub(crate) fn used(&mut self) {
        self.used_at = Instant::now();
        self.was_used = true;
    }

    fn take_used(&mut self) -> bool {
        std::mem::take(&mut self.was_used)
    }

    /// What a flow that has nothing for the guest says.
    pub(crate) fn idle(&self) -> Pulled {
        let ends_at = self.used_at + self.limit;
        if ends_at <= Instant::now() { Pulled::End(End::Orderly) } else { Pulled::Idle(Some(ends_at)) }
    }
}
