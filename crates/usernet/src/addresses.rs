//! Addresses of the guest's link, and the classification of destinations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::clouds::is_metadata;

/// Hardware address of gateway and resolver: locally administered; the last four bytes are 10.0.2.2.
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];

/// The guest's IPv4 network, a /24.
pub(crate) const NETWORK_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 0);
pub(crate) const PREFIX_LEN_V4: u8 = 24;
pub(crate) const NETMASK_V4: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
pub(crate) const BROADCAST_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 255);
/// The gateway. Represents the host's loopback, 127.0.0.1.
pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The resolver. Represents the host's resolver, port 53 only.
pub(crate) const RESOLVER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The guest's address, assigned by DHCP.
pub(crate) const GUEST_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// The guest's IPv6 network, a /64 with a unique local prefix (RFC 4193).
pub(crate) const NETWORK_V6: Ipv6Addr = Ipv6Addr::new(0xfd76, 0x6d6d, 0, 0, 0, 0, 0, 0);
pub(crate) const PREFIX_LEN_V6: u8 = 64;
/// The gateway. Represents the host's loopback, ::1.
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd76, 0x6d6d, 0, 0, 0, 0, 0, 2);
/// The resolver. Represents the host's resolver, port 53 only.
pub(crate) const RESOLVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd76, 0x6d6d, 0, 0, 0, 0, 0, 3);
/// Source address of router advertisements, derived from `GATEWAY_MAC` (RFC 4291 appendix A).
pub(crate) const GATEWAY_LINK_LOCAL: Ipv6Addr =
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5055, 0x0aff, 0xfe00, 0x0202);

/// Whether `address` is the gateway's, which represents the host's loopback.
pub(crate) fn is_gateway(address: IpAddr) -> bool {
    address == GATEWAY_V4 || address == GATEWAY_V6
}

/// Whether `address` is the resolver's.
pub(crate) fn is_resolver(address: IpAddr) -> bool {
    address == RESOLVER_V4 || address == RESOLVER_V6
}

/// Whether a flow or datagram can have `address` as its destination. Multicast, broadcast and the unspecified
/// address can't, nor can such an IPv4 address in IPv6 form, which the host's sockets treat as IPv4.
pub(crate) fn can_be_destination(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4 == BROADCAST_V4)
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast()),
    }
}

/// Whether `address` belongs to the public internet. `*` in a rule covers it unless it is near the host.
pub(crate) fn is_public(address: IpAddr) -> bool {
    !is_metadata(address)
        && match address {
            IpAddr::V4(v4) => !is_special_v4(v4),
            IpAddr::V6(v6) => is_public_v6(v6),
        }
}

/// Whether the IANA IPv4 Special-Purpose Address Registry (RFC 6890) lists it as not globally reachable.
fn is_special_v4(address: Ipv4Addr) -> bool {
    match address.octets() {
        // "This network", RFC 791; private, RFC 1918; loopback.
        [0 | 10 | 127, ..] => true,
        // Shared address space of operators and their customers, RFC 6598: 100.64.0.0/10.
        [100, 64..=127, ..] => true,
        // Link-local, RFC 3927. Clouds put their metadata service there.
        [169, 254, ..] => true,
        [172, 16..=31, ..] => true,
        // IETF protocol assignments, RFC 6890: 192.0.0.0/24. Documentation, RFC 5737.
        [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        // 6to4 relay anycast, RFC 7526 (deprecated): 192.88.99.0/24.
        [192, 88, 99, _] => true,
        [192, 168, ..] => true,
        // Benchmarking, RFC 2544: 198.18.0.0/15.
        [198, 18 | 19, ..] => true,
        // Multicast, reserved (240.0.0.0/4) and broadcast.
        [224..=255, ..] => true,
        _ => false,
    }
}

/// Only 2000::/3 is assigned as global unicast. That excludes fc00::/7, fe80::/10, ff00::/8, ::1, :: and the
/// forms that embed an IPv4 address: v4-mapped, v4-compatible and NAT64 (64:ff9b::/96). Within 2000::/3, two
/// more such forms are excluded, and what the IANA IPv6 Special-Purpose Address Registry lists as not
/// globally reachable.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // IETF protocol assignments, RFC 2928: 2001::/23, with Teredo (RFC 4380), benchmarking (RFC 5180) and
        // ORCHID (RFC 4843). Its globally reachable parts, such as 2001:20::/28, aren't used for connections.
        [0x2001, 0..=0x01ff, ..] => false,
        // Documentation, RFC 3849 and RFC 9637: 3fff::/20.
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // 6to4, RFC 3056.
        [0x2002, ..] => false,
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_public(addresses: &[&str], expected: bool) {
        for text in addresses {
            assert_eq!(is_public(text.parse().unwrap()), expected, "{text}");
        }
    }

    /// The last address before each special range and the first one after it.
    #[test]
    fn ipv4_address_beside_special_range_is_public() {
        assert_public(
            &[
                "1.0.0.0",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "169.253.255.255",
                "169.255.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "191.255.255.255",
                "192.0.1.0",
                "192.0.1.255",
                "192.0.3.0",
                "192.88.98.255",
                "192.88.100.0",
                "192.167.255.255",
                "192.169.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "198.51.99.255",
                "198.51.101.0",
                "203.0.112.255",
                "203.0.114.0",
                "223.255.255.255",
            ],
            true,
        );
    }

    /// The first and the last address of each special range.
    #[test]
    fn ipv4_address_in_special_range_is_not_public() {
        assert_public(
            &[
                "0.0.0.0",
                "0.255.255.255",
                "10.0.0.0",
                "10.255.255.255",
                "100.64.0.0",
                "100.127.255.255",
                "127.0.0.0",
                "127.255.255.255",
                "169.254.0.0",
                "169.254.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.0.0.0",
                "192.0.0.255",
                "192.0.2.0",
                "192.0.2.255",
                "192.88.99.0",
                "192.88.99.255",
                "192.168.0.0",
                "192.168.255.255",
                "198.18.0.0",
                "198.19.255.255",
                "198.51.100.0",
                "198.51.100.255",
                "203.0.113.0",
                "203.0.113.255",
                "224.0.0.0",
                "239.255.255.255",
                "240.0.0.0",
                "255.255.255.255",
            ],
            false,
        );
    }

    #[test]
    fn ipv6_address_of_global_unicast_is_public() {
        assert_public(
            &[
                "2000::",
                "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:200::",
                "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db9::",
                "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2003::",
                "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "3fff:1000::",
                "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
            true,
        );
    }

    #[test]
    fn ipv6_address_outside_global_unicast_is_not_public() {
        assert_public(
            &[
                "::",
                "::1",
                "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "4000::",
                "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "fc00::",
                "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "fe80::",
                "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "fec0::",
                "ff00::",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
            false,
        );
    }

    #[test]
    fn ipv6_address_for_protocols_or_documentation_is_not_public() {
        assert_public(
            &[
                "2001:1::1",
                "2001:2::",
                "2001:10::",
                "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                "3fff::",
                "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
            false,
        );
    }

    /// Their numbers alone would make them public.
    #[test]
    fn metadata_address_with_public_number_is_not_public() {
        assert_public(&["168.63.129.16", "192.80.8.124", "100.100.100.200", "fd00:ec2::254"], false);
        assert_public(&["168.63.129.15", "168.63.129.17", "192.80.8.123", "192.80.8.125"], true);
    }

    /// Each embeds an IPv4 address that a gateway on the path would extract; even a public one must be
    /// listed.
    #[test]
    fn ipv6_form_of_ipv4_address_is_not_public() {
        assert_public(
            &[
                "::ffff:127.0.0.1",
                "::ffff:1.1.1.1",
                "::127.0.0.1",
                "::1.1.1.1",
                "64:ff9b::10.0.0.1",
                "64:ff9b:1::10.0.0.1",
                "2002:a00:1::",
                "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001::",
                "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
            false,
        );
    }

    #[test]
    fn own_addresses_are_not_public() {
        assert_public(
            &["10.0.2.2", "10.0.2.3", "10.0.2.15", "fd76:6d6d::2", "fd76:6d6d::3", "fe80::5055:aff:fe00:202"],
            false,
        );
    }

    #[test]
    fn group_address_cannot_be_destination() {
        let refused = [
            "0.0.0.0",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "10.0.2.255",
            "::",
            "ff02::1",
            "::ffff:224.0.0.1",
            "::ffff:255.255.255.255",
            "::ffff:0.0.0.0",
        ];
        for text in refused {
            assert!(!can_be_destination(text.parse().unwrap()), "{text}");
        }
        for text in ["0.0.0.1", "127.0.0.1", "10.0.2.2", "192.0.2.255", "240.0.0.1", "::1", "fe80::1"] {
            assert!(can_be_destination(text.parse().unwrap()), "{text}");
        }
    }
}
