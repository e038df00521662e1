//! A rule, and its decision about a destination.

use std::fmt;
use std::net::SocketAddr;

use super::network::Network;
use crate::addresses::{is_gateway, is_public, is_resolver};

/// The protocol of a rule or flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

/// A rule of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    To {
        protocol: Protocol,
        destination: Destination,
        ports: Ports,
    },
    /// `host`: ports of the host's loopback, through the gateway's address.
    Host(Ports),
    /// `dns`: the resolver's address.
    Dns,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// `*`: the public internet, except what is near the host.
    Public,
    Within(Network),
}

/// An inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) first: u16,
    pub(super) last: u16,
}

impl Ports {
    /// All ports, including port 0, which stands for ICMP.
    pub(super) const ALL: Self = Self { first: 0, last: u16::MAX };

    pub(super) fn include(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// A rule's decision about a destination.
pub(super) enum Verdict {
    No,
    Yes,
    /// Permitted unless the address is the host's own or in a directly connected subnet.
    UnlessNear,
}

impl Rule {
    /// Decides about the destination `to`.
    pub(super) fn decide(&self, protocol: Protocol, to: SocketAddr) -> Verdict {
        let is_of_ports = protocol != Protocol::Icmp;
        match self {
            Self::To { protocol: of, destination, ports } if *of == protocol => {
                if is_of_ports && !ports.include(to.port()) {
                    return Verdict::No;
                }
                match destination {
                    Destination::Public if is_public(to.ip()) => Verdict::UnlessNear,
                    Destination::Within(network) if network.covers(to.ip()) => Verdict::Yes,
                    _ => Verdict::No,
                }
            }
            Self::Host(ports) if is_of_ports && is_gateway(to.ip()) && ports.include(to.port()) => {
                Verdict::Yes
            }
            Self::Dns if is_of_ports && is_resolver(to.ip()) && to.port() == 53 => Verdict::Yes,
            _ => Verdict::No,
        }
    }
}
