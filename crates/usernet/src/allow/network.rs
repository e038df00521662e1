//! The network in a rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addresses::{NETWORK_V4, NETWORK_V6, PREFIX_LEN_V4, PREFIX_LEN_V6};

/// An address and the length of its prefix. The remaining bits are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    prefix_len: u8,
}

/// Networks that only a rule within them permits: the host's loopback, the guest's link, and IPv4 addresses
/// in IPv6 form, which sockets treat as IPv4.
const RESERVED: [Network; 6] = [
    Network { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix_len: 8 },
    Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix_len: 128 },
    // ::ffff:0.0.0.0/96, and ::ffff:127.0.0.0/104 in it.
    Network { address: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), prefix_len: 96 },
    Network { address: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 0)), prefix_len: 104 },
    Network { address: IpAddr::V4(NETWORK_V4), prefix_len: PREFIX_LEN_V4 },
    Network { address: IpAddr::V6(NETWORK_V6), prefix_len: PREFIX_LEN_V6 },
];

impl Network {
    /// The network that consists of one address.
    pub(super) fn of(address: IpAddr) -> Self {
        Self { address, prefix_len: longest_prefix(address) }
    }

    /// The network `address`/`prefix_len`. If `address` has bits set beyond the prefix, the error is the
    /// network's address. `prefix_len` is at most the length of an address.
    pub(super) fn new(address: IpAddr, prefix_len: u8) -> Result<Self, IpAddr> {
        let network = masked(address, prefix_len);
        if network == address { Ok(Self { address, prefix_len }) } else { Err(network) }
    }

    /// Whether a rule for this network permits `address`. For reserved networks the rule's network must lie
    /// within them: with 10.0.0.0/8 or 0.0.0.0/0 users mean other machines, and with ::/0 only IPv6.
    pub(super) fn covers(&self, address: IpAddr) -> bool {
        self.includes(address)
            && RESERVED.iter().all(|reserved| !reserved.includes(address) || reserved.includes_all_of(self))
    }

    fn includes(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && masked(address, self.prefix_len) == self.address
    }

    fn includes_all_of(&self, other: &Self) -> bool {
        other.prefix_len >= self.prefix_len && self.includes(other.address)
    }
}

/// Number of bits in an address of this family.
pub(super) fn longest_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// `address` with the bits beyond the prefix cleared.
fn masked(address: IpAddr, prefix_len: u8) -> IpAddr {
    // Rust has no shift by the full width; an empty prefix clears all bits.
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix_len.into())).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix_len.into())).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}
