//! What the guest may reach. Nothing, unless a rule permits it.

mod network;
mod parse;
mod problem;
mod rule;

use std::net::{IpAddr, SocketAddr};

pub use problem::RuleError;
pub(crate) use rule::Protocol;

use crate::addresses::can_be_destination;
use rule::{Destination, Rule, Verdict};

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

impl Allow {
    /// Permits every destination.
    pub fn all() -> Self {
        Self(Rules::All)
    }

    /// Permits what at least one of `rules` permits. The error quotes the first rule that is none, and says what to
    /// write.
    pub fn parse(rules: &[String]) -> Result<Self, RuleError> {
        let parsed = rules.iter().enumerate().map(|(index, text)| {
            parse::parse(text).map_err(|problem| RuleError { index, rule: text.clone(), problem })
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

#[cfg(test)]
mod tests;
