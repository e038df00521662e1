//! Parses rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::network::{Network, longest_prefix};
use super::problem::{Problem, RuleAddress};
use super::rule::{Destination, Ports, Protocol, Rule};

/// Parses a rule.
pub(super) fn parse(text: &str) -> Result<Rule, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.contains(char::is_whitespace) {
        return Err(Problem::Space);
    }
    let (head, rest) = match text.split_once(':') {
        Some((head, rest)) => (head, Some(rest)),
        None => (text, None),
    };
    match (head, rest.filter(|rest| !rest.is_empty())) {
        ("all", _) => Err(Problem::All),
        ("dns", None) if rest.is_none() => Ok(Rule::Dns),
        ("dns", _) => Err(Problem::MoreThanDns),
        ("host", None) => Err(Problem::NoPort("host".into())),
        ("host", Some(ports)) => Ok(Rule::Host(parse_ports(ports)?)),
        ("icmp", None) => Err(Problem::NoAddress("icmp", "")),
        ("icmp", Some(rest)) => parse_icmp(rest),
        ("tcp", None) => Err(Problem::NoAddress("tcp", ":443")),
        ("tcp", Some(rest)) => parse_to(Protocol::Tcp, rest),
        ("udp", None) => Err(Problem::NoAddress("udp", ":53")),
        ("udp", Some(rest)) => parse_to(Protocol::Udp, rest),
        _ => Err(Problem::Protocol),
    }
}

fn parse_icmp(rest: &str) -> Result<Rule, Problem> {
    let (destination, after) = split_destination(rest)?;
    let parsed = parse_destination(&destination)?;
    match after {
        Some(_) => Err(Problem::IcmpPort(destination.text().into())),
        None => Ok(Rule::To { protocol: Protocol::Icmp, destination: parsed, ports: Ports::ALL }),
    }
}

fn parse_to(protocol: Protocol, rest: &str) -> Result<Rule, Problem> {
    let (destination, ports) = split_destination(rest)?;
    let parsed = parse_destination(&destination)?;
    match ports.filter(|ports| !ports.is_empty()) {
        None => Err(Problem::NoPort(format!("{protocol}:{}", destination.text()))),
        Some(ports) => Ok(Rule::To { protocol, destination: parsed, ports: parse_ports(ports)? }),
    }
}

/// The text of a destination, split into its parts.
enum Pieces<'a> {
    Star,
    /// `address` and the prefix length after a `/`.
    V4 {
        text: &'a str,
        address: &'a str,
        prefix: Option<&'a str>,
    },
    V6 {
        text: &'a str,
        address: &'a str,
        prefix: Option<&'a str>,
    },
}

impl<'a> Pieces<'a> {
    fn text(&self) -> &'a str {
        match self {
            Self::Star => "*",
            Self::V4 { text, .. } | Self::V6 { text, .. } => text,
        }
    }
}

/// Splits off the destination from what follows its colon.
fn split_destination(rest: &str) -> Result<(Pieces<'_>, Option<&str>), Problem> {
    if let Some(inside) = rest.strip_prefix('[') {
        return split_v6(rest, inside);
    }
    let (text, after) = match rest.split_once(':') {
        Some((text, after)) => (text, Some(after)),
        None => (rest, None),
    };
    // A second colon means IPv6: neither ports nor IPv4 addresses contain one.
    if after.is_some_and(|after| after.contains(':')) {
        return Err(Problem::NoBrackets);
    }
    if text == "*" {
        return Ok((Pieces::Star, after));
    }
    let (address, prefix) = split_prefix(text);
    Ok((Pieces::V4 { text, address, prefix }, after))
}

/// Splits `[address/prefix]:rest` or `[address]/prefix:rest`. `inside` is `rest` without its opening bracket.
fn split_v6<'a>(rest: &'a str, inside: &'a str) -> Result<(Pieces<'a>, Option<&'a str>), Problem> {
    let (bracketed, tail) = inside.split_once(']').ok_or(Problem::OpenBracket)?;
    let (outer, after) = match tail.split_once(':') {
        Some((outer, after)) => (outer, Some(after)),
        None => (tail, None),
    };
    let outer_prefix = match outer.strip_prefix('/') {
        Some(prefix) => Some(prefix),
        None if outer.is_empty() => None,
        None => return Err(Problem::BehindBracket(outer.into())),
    };
    let (address, inner_prefix) = split_prefix(bracketed);
    if inner_prefix.is_some() && outer_prefix.is_some() {
        return Err(Problem::TwoPrefixes);
    }
    let text = after.map_or(rest, |after| &rest[..rest.len() - after.len() - 1]);
    Ok((Pieces::V6 { text, address, prefix: inner_prefix.or(outer_prefix) }, after))
}

fn split_prefix(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    }
}

fn parse_destination(pieces: &Pieces<'_>) -> Result<Destination, Problem> {
    let (address, prefix) = match *pieces {
        Pieces::Star => return Ok(Destination::Public),
        Pieces::V4 { address, prefix, .. } => (parse_v4(address)?, prefix),
        Pieces::V6 { address, prefix, .. } => (parse_v6(address)?, prefix),
    };
    let Some(prefix) = prefix else { return Ok(Destination::Within(Network::of(address))) };
    let longest = longest_prefix(address);
    let prefix_len = parse_digits(prefix)
        .filter(|number| *number <= longest.into())
        .and_then(|number| u8::try_from(number).ok())
        .ok_or_else(|| Problem::NotPrefix(prefix.into(), longest))?;
    let network = Network::new(address, prefix_len)
        .map_err(|meant| Problem::HostBits(RuleAddress(meant), prefix_len))?;
    Ok(Destination::Within(network))
}

fn parse_v4(text: &str) -> Result<IpAddr, Problem> {
    text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| match text.contains(|c: char| c.is_alphabetic()) {
        true => Problem::Name(text.into()),
        false => Problem::NotV4(text.into()),
    })
}

fn parse_v6(text: &str) -> Result<IpAddr, Problem> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Err(Problem::BracketedV4(address.into()));
    }
    text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Problem::NotV6(text.into()))
}

/// Parses `*`, a port, or a range of ports.
fn parse_ports(text: &str) -> Result<Ports, Problem> {
    if text == "*" {
        return Ok(Ports::ALL);
    }
    let not_port = || Problem::NotPort(text.into());
    let Some((first, last)) = text.split_once('-') else {
        let port = parse_port(text, not_port)?;
        return Ok(Ports { first: port, last: port });
    };
    let (first, last) = (parse_port(first, not_port)?, parse_port(last, not_port)?);
    if first > last {
        return Err(Problem::UpsideDown(first, last));
    }
    Ok(Ports { first, last })
}

fn parse_port(text: &str, not_port: impl Fn() -> Problem) -> Result<u16, Problem> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(not_port());
    }
    match parse_digits(text).map(u16::try_from) {
        Some(Ok(0)) => Err(Problem::PortZero),
        Some(Ok(port)) => Ok(port),
        _ => Err(Problem::PortTooLarge(text.into())),
    }
}

/// Parses a number that consists of digits only; the standard library would accept a sign.
fn parse_digits(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
