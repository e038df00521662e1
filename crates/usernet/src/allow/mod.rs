//! What the guest may reach. Nothing, unless a rule permits it.

mod network;
mod problem;
mod rule;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use problem::RuleError;

use crate::addresses::{can_be_destination, is_gateway, is_public, is_resolver};
use network::Network;

/// What a rule permits and a flow speaks.
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

/// What the guest may reach: all, or what a list of rules permits. An empty list permits nothing.
///
/// | rule | permits |
/// |---|---|
/// | `tcp:WHERE:PORTS`, `udp:WHERE:PORTS` | these ports there |
/// | `icmp:WHERE` | echo requests to there |
/// | `host:PORTS` | these ports of the host's loopback, by TCP and UDP, as the gateway's address |
/// | `dns` | the host's resolver, as the resolver's address |
///
/// `WHERE` is `*` for the public internet, an IPv4 address or network (`192.0.2.0/24`), or an IPv6 one in brackets
/// (`[2001:db8::]/32`). `PORTS` is `*`, a port, or a range `8000-8100`.
///
/// The public internet is every address that IANA's registries call globally reachable, except the host's own, those of
/// subnets that the host is directly connected to, and the clouds' metadata services. Each of these can be listed.
///
/// An address is compared as the guest names it. The host's loopback, under its own addresses or as the gateway, is
/// permitted by no network that merely includes it: `tcp:10.0.0.0/8:*` leaves out the gateway, 10.0.2.2. Nor does a network
/// outside ::ffff:0:0/96 permit the IPv6 form of an IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow(Rules);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rules {
    All,
    List(Vec<Rule>),
}

/// One rule of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    To {
        protocol: Protocol,
        destination: Destination,
        ports: Ports,
    },
    /// The gateway's address.
    Host(Ports),
    /// The resolver's address.
    Dns,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Destination {
    /// `*`: the public internet, less what is near the host.
    Public,
    Within(Network),
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Port 0 of ICMP too, which has none.
    const ALL: Self = Self { first: 0, last: u16::MAX };

    fn include(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// How a rule decides about a destination.
enum Verdict {
    No,
    Yes,
    /// Yes, unless the address is the host's own or in a subnet of one of its links.
    UnlessNear,
}

impl Allow {
    /// Permits every destination.
    pub fn all() -> Self {
        Self(Rules::All)
    }

    /// Permits what at least one of `rules` permits. The error quotes the first rule that is none, and says what to
    /// write.
    pub fn parse(rules: &[String]) -> Result<Self, RuleError> {
        let parsed = rules.iter().enumerate().map(|(index, text)| {
            rule::parse(text).map_err(|problem| RuleError { index, rule: text.clone(), problem })
        });
        Ok(Self(Rules::List(parsed.collect::<Result<_, _>>()?)))
    }

    /// Whether an answer may depend on the host's routing.
    pub(crate) fn asks_what_is_near(&self) -> bool {
        let Rules::List(rules) = &self.0 else { return false };
        rules.iter().any(|rule| matches!(rule, Rule::To { destination: Destination::Public, .. }))
    }

    /// Whether the guest may reach `to`, as it named it; of ICMP the port doesn't matter. `is_near` says whether an
    /// address is the host's or directly connected to it; it's asked at most once and only where the answer matters.
    pub(crate) fn permits(
        &self,
        protocol: Protocol,
        to: SocketAddr,
        is_near: impl FnOnce(IpAddr) -> bool,
    ) -> bool {
        if !can_be_destination(to.ip()) {
            return false;
        }
        let Rules::List(rules) = &self.0 else { return true };
        let mut unless_near = false;
        for rule in rules {
            match rule.decide(protocol, to) {
                Verdict::No => {}
                Verdict::Yes => return true,
                Verdict::UnlessNear => unless_near = true,
            }
        }
        unless_near && !is_near(to.ip())
    }
}

impl Rule {
    fn decide(&self, protocol: Protocol, to: SocketAddr) -> Verdict {
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

#[cfg(test)]
mod tests;
