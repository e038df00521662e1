//! The rules for what the guest may reach. Without a rule, nothing is permitted.

mod network;
mod parse;
mod problem;
mod rule;

use std::net::{IpAddr, SocketAddr};

pub use problem::RuleError;
pub(crate) use rule::Protocol;

use crate::addresses::can_be_destination;
use rule::{Destination, Rule, Verdict};

/// The number of ports above which a list of them isn't worth it.
const PORTS_MAX: usize = 1024;

/// What the guest may reach: everything, or what a list of rules permits. An empty list permits nothing.
///
/// | rule | permits |
/// |---|---|
/// | `tcp:WHERE:PORTS`, `udp:WHERE:PORTS` | these ports at these addresses |
/// | `icmp:WHERE` | echo requests to these addresses |
/// | `host:PORTS` | these TCP and UDP ports of the host's loopback, through the gateway's address |
/// | `dns` | the host's resolver, through the resolver's address |
///
/// `WHERE` is `*` for the public internet, an IPv4 address or network (`192.0.2.0/24`), or an IPv6 one in
/// brackets (`[2001:db8::]/32`). `PORTS` is `*`, a port, or a range `8000-8100`.
///
/// The public internet is every address that IANA's registries list as globally reachable, except the host's
/// own addresses, those of subnets to which the host is directly connected, and clouds' metadata services.
/// Each of these can be listed explicitly.
///
/// Rules apply to the address that the guest uses. A network that merely includes the host's loopback doesn't
/// permit it, neither under its own addresses nor as the gateway: `tcp:10.0.0.0/8:*` excludes the gateway,
/// 10.0.2.2. A network outside ::ffff:0:0/96 doesn't permit IPv4 addresses in IPv6 form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow(Rules);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rules {
    All,
    List(Vec<Rule>),
}

impl Allow {
    /// Permits all destinations.
    pub fn all() -> Self {
        Self(Rules::All)
    }

    /// Permits whatever at least one of `rules` permits.
    ///
    /// # Errors
    /// The first invalid rule; the message quotes it and says what to write.
    pub fn parse(rules: &[String]) -> Result<Self, RuleError> {
        let parsed = rules.iter().enumerate().map(|(index, text)| {
            parse::parse(text).map_err(|problem| RuleError { index, rule: text.clone(), problem })
        });
        Ok(Self(Rules::List(parsed.collect::<Result<_, _>>()?)))
    }

    /// The TCP ports that may be connected to on the host's side, where the resolver has the port `resolver`. `None` if there are more
    /// than [`PORTS_MAX`].
    pub(crate) fn tcp_ports(&self, resolver: Option<u16>) -> Option<Vec<u16>> {
        let Rules::List(rules) = &self.0 else { return None };
        let mut all = Vec::new();
        for rule in rules {
            match rule {
                Rule::To { protocol: Protocol::Tcp, ports, .. } | Rule::Host(ports) => {
                    all.extend(ports.first..=ports.last);
                }
                Rule::To { .. } => {}
                Rule::Dns => all.extend(resolver),
            }
            if all.len() > PORTS_MAX {
                return None;
            }
        }
        Some(all)
    }

    /// Whether a decision may depend on the host's routes.
    pub(crate) fn asks_what_is_near(&self) -> bool {
        let Rules::List(rules) = &self.0 else { return false };
        rules.iter().any(|rule| matches!(rule, Rule::To { destination: Destination::Public, .. }))
    }

    /// Whether the guest may reach `to`, the address that it uses; ICMP ignores the port. `is_near` says
    /// whether an address is the host's own or directly connected. It is called at most once, and only if the
    /// decision depends on it.
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
