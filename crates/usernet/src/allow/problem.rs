//! What can be wrong with a rule.

use std::net::IpAddr;

use thiserror::Error;

/// A text in the list of rules that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{rule:?} {problem}")]
pub struct RuleError {
    pub(super) index: usize,
    pub(super) rule: String,
    pub(super) problem: Problem,
}

impl RuleError {
    /// Which rule of the list it is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }
}

/// Continues a sentence that begins with the rule, quoted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Problem {
    #[error(r#"is empty: write a rule, as "tcp:*:443", or leave it out"#)]
    Empty,
    #[error("holds white space: write the rule without")]
    Space,
    #[error(r#"can't be in a list: write "allow": "all" instead of the list"#)]
    All,
    #[error(r#"begins with no protocol: "tcp:", "udp:", "icmp:", "host:" or "dns""#)]
    Protocol,
    #[error(r#"says more than "dns", which is the whole rule: write "dns""#)]
    MoreThanDns,
    #[error(r#"says no address: write "{0}:*{1}", or an address for the *"#)]
    NoAddress(&'static str, &'static str),
    #[error(r#"says no port: write "{0}:443", "{0}:8000-8100" or "{0}:*""#)]
    NoPort(String),
    #[error(r#"says a port, which icmp has not: write "icmp:{0}""#)]
    IcmpPort(String),
    #[error("names {0:?}: a name isn't an address, resolve it and write its addresses")]
    Name(String),
    #[error(r#"holds {0:?}, which is no IPv4 address: write one as "192.0.2.7""#)]
    NotV4(String),
    #[error(r#"holds {0:?}, which is no IPv6 address: write one as "[2001:db8::7]""#)]
    NotV6(String),
    #[error(r#"holds an IPv6 address without brackets: write it as "[2001:db8::7]""#)]
    NoBrackets,
    #[error(r#"opens a bracket and doesn't close it: write "[2001:db8::7]""#)]
    OpenBracket,
    #[error(r#"has an IPv4 address in brackets: write "{0}" without"#)]
    BracketedV4(IpAddr),
    #[error(
        "has {0:?} behind a bracket, where a prefix length or a port is due: write \"[2001:db8::]/32:443\""
    )]
    BehindBracket(String),
    #[error("has two prefix lengths: write one of them")]
    TwoPrefixes,
    #[error("has {0:?} for a prefix length: write a number up to {1}")]
    NotPrefix(String, u8),
    #[error(
        "has bits of the address set behind the prefix: write {0}/{1} for the network, or the address alone"
    )]
    HostBits(Written, u8),
    #[error(r#"has {0:?} for a port: write a number of 1 to 65535, a range as "8000-8100", or "*""#)]
    NotPort(String),
    #[error("has port 0, which is none: write a number of 1 to 65535")]
    PortZero,
    #[error("has port {0}, and 65535 is the last")]
    PortTooLarge(String),
    #[error("has a range that is upside down: write {1}-{0}")]
    UpsideDown(u16, u16),
}

/// An address as rules write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written(pub(super) IpAddr);

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "[{address}]"),
        }
    }
}
