//! A network of a rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addresses::{NETWORK_V4, NETWORK_V6, PREFIX_LEN_V4, PREFIX_LEN_V6};

/// An address and how many of its leading bits count. The others are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    prefix_len: u8,
}

/// Where the host itself answers, what its loopback and the guest's link are called, and the IPv6 form of all IPv4
/// addresses, which a socket takes for these.
const APART: [Network; 6] = [
    Network { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix_len: 8 },
    Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix_len: 128 },
    // ::ffff:0.0.0.0/96, and ::ffff:127.0.0.0/104 in it.
    Network { address: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), prefix_len: 96 },
    Network { address: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 0)), prefix_len: 104 },
    Network { address: IpAddr::V4(NETWORK_V4), prefix_len: PREFIX_LEN_V4 },
    Network { address: IpAddr::V6(NETWORK_V6), prefix_len: PREFIX_LEN_V6 },
];

impl Network {
    /// The network of one address.
    pub(super) fn of(address: IpAddr) -> Self {
        Self { address, prefix_len: longest_prefix(address) }
    }

    /// The network that `address` is in, or the network as it must be written if bits of `address` behind the prefix
    /// are set. `prefix_len` is at most the address's length.
    pub(super) fn new(address: IpAddr, prefix_len: u8) -> Result<Self, IpAddr> {
        let network = cut(address, prefix_len);
        if network == address { Ok(Self { address, prefix_len }) } else { Err(network) }
    }

    /// Whether a rule for this network permits `address`. Where the host itself answers, the network must lie within
    /// it: whoever lists 10.0.0.0/8 or 0.0.0.0/0 thinks of other machines, and with ::/0 of IPv6 only.
    pub(super) fn covers(&self, address: IpAddr) -> bool {
        self.includes(address)
            && APART.iter().all(|apart| !apart.includes(address) || apart.includes_all_of(self))
    }

    fn includes(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && cut(address, self.prefix_len) == self.address
    }

    fn includes_all_of(&self, other: &Self) -> bool {
        other.prefix_len >= self.prefix_len && self.includes(other.address)
    }
}

/// How many bits an address like `address` has.
pub(super) fn longest_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// `address` with the bits behind the prefix cleared.
fn cut(address: IpAddr, prefix_len: u8) -> IpAddr {
    // A shift by all of the bits is none of Rust's shifts: a prefix of no bits leaves none.
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
