//! Host ports that are forwarded to the guest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::allow::Protocol;

/// A host port forwarded to a guest port: `[tcp:|udp:][ADDRESS:]PORT:GUEST_PORT`.
///
/// Defaults are TCP and 127.0.0.1. An IPv6 address is written in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub(crate) protocol: Protocol,
    /// Address and port on the host.
    pub(crate) listen: SocketAddr,
    pub(crate) guest_port: u16,
    /// As the user wrote it, for messages.
    pub(crate) text: String,
}

/// An invalid forward.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} {problem}")]
pub struct ForwardError {
    text: String,
    problem: Problem,
}

/// Continues a sentence that starts with the quoted forward.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
enum Problem {
    #[error(r#"is empty: write a forward, such as "8080:80", or leave it out"#)]
    Empty,
    #[error("holds white space: write the forward without any")]
    Space,
    #[error("has no port of the guest: write \"{0}:80\", the host's port and then the guest's")]
    NoGuestPort(String),
    #[error(r#"has no port of the host: write "{0}:8080:{1}", the host's port and then the guest's"#)]
    NoHostPort(String, String),
    #[error("has {0:?} as its protocol: write \"tcp:\" or \"udp:\", or nothing for TCP")]
    Protocol(String),
    #[error("has {0:?} as a port: write a number from 1 to 65535")]
    NotPort(String),
    #[error("has port 0, which isn't valid: write a number from 1 to 65535")]
    PortZero,
    #[error("has port {0}, but 65535 is the highest")]
    PortTooLarge(String),
    #[error(
        "names {0:?}: a forward needs an address: resolve the name and write its address, such as \"127.0.0.1\""
    )]
    Name(String),
    #[error(r#"has {0:?}, which isn't an IPv4 address: write one such as "127.0.0.1""#)]
    NotV4(String),
    #[error(r#"has {0:?}, which isn't an IPv6 address: write one such as "[::1]""#)]
    NotV6(String),
    #[error("has an IPv4 address in brackets: write \"{0}\"")]
    BracketedV4(Ipv4Addr),
    #[error(r#"has an IPv6 address without brackets, or too many parts: write "127.0.0.1:8080:80" or "[::1]:8080:80""#)]
    Parts,
    #[error("has {0}, a multicast or broadcast address: write one of the host's addresses")]
    Group(IpAddr),
}

impl Forward {
    /// Parses a forward.
    ///
    /// # Errors
    /// The text is invalid; the message quotes it and says what to write.
    pub fn parse(text: &str) -> Result<Self, ForwardError> {
        parse(text).map_err(|problem| ForwardError { text: text.into(), problem })
    }

    /// The host's end, which only one socket can have: `tcp:127.0.0.1:8080`.
    pub fn host_end(&self) -> String {
        self.end_at(self.listen)
    }

    /// The host's end on all addresses, such as `tcp:0.0.0.0:8080`, which conflicts with this one. `None` if
    /// this one is on all addresses itself.
    pub fn host_end_of_all(&self) -> Option<String> {
        let all: IpAddr = match self.listen {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        (self.listen.ip() != all).then(|| self.end_at(SocketAddr::new(all, self.listen.port())))
    }

    fn end_at(&self, address: SocketAddr) -> String {
        let protocol = if self.protocol == Protocol::Udp { "udp" } else { "tcp" };
        format!("{protocol}:{address}")
    }
}

fn parse(text: &str) -> Result<Forward, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.contains(char::is_whitespace) {
        return Err(Problem::Space);
    }
    let (protocol, rest) = split_protocol(text)?;
    let (listen, guest) = rest.rsplit_once(':').ok_or_else(|| Problem::NoGuestPort(rest.into()))?;
    let (address, host) = match listen.rsplit_once(':') {
        // "[::1]:80": the colon is part of the address.
        _ if listen.ends_with(']') => return Err(Problem::NoHostPort(listen.into(), guest.into())),
        Some((address, host)) => (parse_address(address)?, host),
        // "127.0.0.1:80": the dots show that it isn't a port.
        None if listen.parse::<Ipv4Addr>().is_ok() => {
            return Err(Problem::NoHostPort(listen.into(), guest.into()));
        }
        None => (Ipv4Addr::LOCALHOST.into(), listen),
    };
    let listen = SocketAddr::new(address, parse_port(host)?);
    Ok(Forward { protocol, listen, guest_port: parse_port(guest)?, text: text.into() })
}

/// Splits off the protocol. A host name could be in its place, so only words that are probably meant as a
/// protocol are reported as a wrong one.
fn split_protocol(text: &str) -> Result<(Protocol, &str), Problem> {
    match text.split_once(':') {
        Some(("tcp", rest)) => Ok((Protocol::Tcp, rest)),
        Some(("udp", rest)) => Ok((Protocol::Udp, rest)),
        Some((word @ ("TCP" | "UDP" | "icmp" | "sctp" | "unix"), _)) => Err(Problem::Protocol(word.into())),
        _ => Ok((Protocol::Tcp, text)),
    }
}

fn parse_address(text: &str) -> Result<IpAddr, Problem> {
    let address: IpAddr = if let Some(inside) = text.strip_prefix('[') {
        let inside = inside.strip_suffix(']').ok_or(Problem::Parts)?;
        if let Ok(address) = inside.parse() {
            return Err(Problem::BracketedV4(address));
        }
        IpAddr::V6(inside.parse().map_err(|_| Problem::NotV6(inside.into()))?)
    } else if text.contains(':') {
        return Err(Problem::Parts);
    } else {
        IpAddr::V4(text.parse().map_err(|_| match text.contains(|c: char| c.is_alphabetic()) {
            true => Problem::Name(text.into()),
            false => Problem::NotV4(text.into()),
        })?)
    };
    let canonical = address.to_canonical();
    if canonical.is_multicast() || canonical == Ipv4Addr::BROADCAST {
        return Err(Problem::Group(address));
    }
    Ok(address)
}

fn parse_port(text: &str) -> Result<u16, Problem> {
    // The standard library would accept a sign.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Problem::NotPort(text.into()));
    }
    match text.parse() {
        Ok(0) => Err(Problem::PortZero),
        Ok(port) => Ok(port),
        Err(_) => Err(Problem::PortTooLarge(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_forward(text: &str, protocol: Protocol, listen: &str, guest_port: u16) {
        let expected =
            Forward { protocol, listen: listen.parse().unwrap(), guest_port, text: text.to_owned() };
        assert_eq!(Forward::parse(text), Ok(expected));
    }

    #[track_caller]
    fn assert_error(text: &str, message: &str) {
        assert_eq!(Forward::parse(text).unwrap_err().to_string(), message);
    }

    #[test]
    fn forward_of_each_form_is_parsed() {
        assert_forward("127.0.0.1:8080:80", Protocol::Tcp, "127.0.0.1:8080", 80);
        assert_forward("8080:80", Protocol::Tcp, "127.0.0.1:8080", 80);
        assert_forward("[::1]:8080:80", Protocol::Tcp, "[::1]:8080", 80);
        assert_forward("tcp:8080:80", Protocol::Tcp, "127.0.0.1:8080", 80);
        assert_forward("udp:0.0.0.0:5353:53", Protocol::Udp, "0.0.0.0:5353", 53);
        assert_forward("udp:[::]:1:65535", Protocol::Udp, "[::]:1", 65535);
    }

    #[test]
    fn host_end_is_part_of_that_of_all_addresses_of_its_family() {
        let ends = |text: &str| {
            let forward = Forward::parse(text).unwrap();
            (forward.host_end(), forward.host_end_of_all())
        };
        let v4 = ("tcp:127.0.0.1:8080".to_owned(), Some("tcp:0.0.0.0:8080".to_owned()));
        assert_eq!(ends("8080:80"), v4);
        let v6 = ("udp:[::1]:53".to_owned(), Some("udp:[::]:53".to_owned()));
        assert_eq!(ends("udp:[::1]:53:53"), v6);
        assert_eq!(ends("0.0.0.0:8080:81"), ("tcp:0.0.0.0:8080".to_owned(), None));
    }

    #[test]
    fn forward_without_a_port_says_which() {
        assert_error("", r#""" is empty: write a forward, such as "8080:80", or leave it out"#);
        assert_error(
            "8080",
            r#""8080" has no port of the guest: write "8080:80", the host's port and then the guest's"#,
        );
        assert_error(
            "127.0.0.1:80",
            r#""127.0.0.1:80" has no port of the host: write "127.0.0.1:8080:80", the host's port and then the guest's"#,
        );
        assert_error(
            "[::1]:80",
            r#""[::1]:80" has no port of the host: write "[::1]:8080:80", the host's port and then the guest's"#,
        );
    }

    #[test]
    fn forward_with_bad_port_says_which() {
        assert_error("0:80", r#""0:80" has port 0, which isn't valid: write a number from 1 to 65535"#);
        assert_error("8080:0", r#""8080:0" has port 0, which isn't valid: write a number from 1 to 65535"#);
        assert_error("8080:65536", r#""8080:65536" has port 65536, but 65535 is the highest"#);
        assert_error("8080:", r#""8080:" has "" as a port: write a number from 1 to 65535"#);
        assert_error(":80", r#"":80" has "" as a port: write a number from 1 to 65535"#);
        assert_error("+8080:80", r#""+8080:80" has "+8080" as a port: write a number from 1 to 65535"#);
        assert_error("8080:http", r#""8080:http" has "http" as a port: write a number from 1 to 65535"#);
    }

    #[test]
    fn forward_with_bad_address_says_what_to_write() {
        assert_error(
            "localhost:8080:80",
            r#""localhost:8080:80" names "localhost": a forward needs an address: resolve the name and write its address, such as "127.0.0.1""#,
        );
        assert_error(
            "127.0.0:8080:80",
            r#""127.0.0:8080:80" has "127.0.0", which isn't an IPv4 address: write one such as "127.0.0.1""#,
        );
        assert_error(
            "::1:8080:80",
            r#""::1:8080:80" has an IPv6 address without brackets, or too many parts: write "127.0.0.1:8080:80" or "[::1]:8080:80""#,
        );
        assert_error(
            "[::g]:8080:80",
            r#""[::g]:8080:80" has "::g", which isn't an IPv6 address: write one such as "[::1]""#,
        );
        assert_error(
            "[127.0.0.1]:8080:80",
            r#""[127.0.0.1]:8080:80" has an IPv4 address in brackets: write "127.0.0.1""#,
        );
        assert_error(
            "224.0.0.1:8080:80",
            r#""224.0.0.1:8080:80" has 224.0.0.1, a multicast or broadcast address: write one of the host's addresses"#,
        );
    }

    #[test]
    fn forward_with_other_protocol_or_space_is_refused() {
        assert_error(
            "sctp:8080:80",
            r#""sctp:8080:80" has "sctp" as its protocol: write "tcp:" or "udp:", or nothing for TCP"#,
        );
        assert_error(" 8080:80", r#"" 8080:80" holds white space: write the forward without any"#);
    }
}
