//! Parses the config's DNS server.

use std::net::{IpAddr, SocketAddr};

use super::user::Resolver;

/// Port of DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// Parses `dns`.
pub(super) fn resolver(text: &str) -> Result<Resolver, String> {
    let address = text.parse::<SocketAddr>().ok();
    let address = address.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT)));
    let is_one = |address: &SocketAddr| address.port() != 0 && !address.ip().is_unspecified();
    let problem =
        || format!("{text:?} isn't a server's address: write one as \"192.0.2.1\" or \"127.0.0.1:5353\"");
    address.filter(is_one).map(Resolver::At).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_without_a_port_has_that_of_dns() {
        let at = |address: &str| Resolver::At(address.parse().unwrap());
        assert_eq!(resolver("192.0.2.1").unwrap(), at("192.0.2.1:53"));
        assert_eq!(resolver("2001:db8::1").unwrap(), at("[2001:db8::1]:53"));
        assert_eq!(resolver("[::1]:5353").unwrap(), at("[::1]:5353"));
    }
}
