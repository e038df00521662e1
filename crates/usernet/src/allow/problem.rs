//! What can be wrong with a rule.

use std::net::IpAddr;

use thiserror::Error;

/// An invalid rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{rule:?} {problem}")]
pub struct RuleError {
    pub(super) index: usize,
    pub(super) rule: String,
    pub(super) problem: Problem,
}

impl RuleError {
    /// Index of the rule in the list.
    pub fn index(&self) -> usize {
        self.index
    }
}

/// Continues a sentence that starts with the quoted rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Problem {
    #[error(r#"is empty: write a rule, such as "tcp:*:443", or leave it out"#)]
    Empty,
    #[error("holds white space: write the rule without any")]
    Space,
    #[error(r#"can't be in a list: write "allow": "all" instead of the list"#)]
    All,
    #[error(r#"doesn't start with a protocol: write "tcp:", "udp:", "icmp:", "host:" or "dns""#)]
    Protocol,
    #[error(r#"has something after "dns", which takes nothing: write "dns""#)]
    MoreThanDns,
    #[error(r#"says no address: write "{0}:*{1}", or an address for the *"#)]
    NoAddress(&'static str, &'static str),
    #[error(r#"says no port: write "{0}:443", "{0}:8000-8100" or "{0}:*""#)]
    NoPort(String),
    #[error(r#"has a port, but ICMP has no ports: write "icmp:{0}""#)]
    IcmpPort(String),
    #[error("names {0:?}: a rule needs an address: resolve the name and write its addresses")]
    Name(String),
    #[error(r#"holds {0:?}, which isn't an IPv4 address: write one such as "192.0.2.7""#)]
    NotV4(String),
    #[error(r#"holds {0:?}, which isn't an IPv6 address: write one such as "[2001:db8::7]""#)]
    NotV6(String),
    #[error(r#"holds an IPv6 address without brackets: write it as "[2001:db8::7]""#)]
    NoBrackets,
    #[error(r#"opens a bracket and doesn't close it: write "[2001:db8::7]""#)]
    OpenBracket,
    #[error(r#"has an IPv4 address in brackets: write "{0}""#)]
    BracketedV4(IpAddr),
    #[error(
        "has {0:?} after a bracket, where a prefix length or a port is expected: write \"[2001:db8::]/32:443\""
    )]
    BehindBracket(String),
    #[error("has two prefix lengths: write one of them")]
    TwoPrefixes,
    #[error("has {0:?} as its prefix length: write a number up to {1}")]
    NotPrefix(String, u8),
    #[error("has address bits set beyond the prefix: write {0}/{1} for the network, or only the address")]
    HostBits(RuleAddress, u8),
    #[error(r#"has {0:?} as a port: write a number from 1 to 65535, a range such as "8000-8100", or "*""#)]
    NotPort(String),
    #[error("has port 0, which isn't valid: write a number from 1 to 65535")]
    PortZero,
    #[error("has port {0}, but 65535 is the highest")]
    PortTooLarge(String),
    #[error("has a reversed range: write {1}-{0}")]
    UpsideDown(u16, u16),
}

/// An address as written in rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleAddress(pub(super) IpAddr);

impl std::fmt::Display for RuleAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "[{address}]"),
        }
    }
}
