//! Neighbour discovery (RFC 4861): the hardware address of gateway and resolver, and router advertisements
//! with the prefix of the guest's address and the resolver (RFC 8106).

use std::net::Ipv6Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Duration;
use smoltcp::wire::{
    EthernetAddress, IPV6_LINK_LOCAL_ALL_NODES, IPV6_MIN_MTU, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr,
    NdiscRouterFlags,
};

use super::reply::{Answer, Reply, is_own_v6};
use crate::addresses::{GATEWAY_LINK_LOCAL, GATEWAY_MAC, NETWORK_V6, PREFIX_LEN_V6, RESOLVER_V6};

/// Messages with a lower hop limit have passed a router and come from elsewhere (RFC 4861 §3.1).
const HOP_LIMIT: u8 = 255;

/// Lifetime of the prefix and the resolver.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Lifetime of the router: the maximum of 16 bits of seconds (allowed by RFC 8319), about 18 hours.
const ROUTER_LIFETIME: Duration = Duration::from_secs(u16::MAX as u64);

/// Offsets of the options in router and neighbour solicitations (§4.1, §4.3).
const ROUTER_SOLICITATION_LEN: usize = 8;
const NEIGHBOR_SOLICITATION_LEN: usize = 24;

/// Option type: the sender's hardware address (§4.6.1).
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;

/// Option type and length: resolver (RFC 8106 §5.1). Type, length in units of 8, 2 reserved, 4 of lifetime,
/// address.
const RDNSS: u8 = 25;
const RDNSS_LEN: usize = 24;

/// Answers a neighbour solicitation for an address of gateway or resolver. Solicitations for the guest's own
/// addresses, which detect duplicates (RFC 4862 §5.4), must not be answered.
pub(super) fn answer_neighbor(packet: &Ipv6Packet<&[u8]>, reply: &mut Reply<'_>) -> Answer {
    let Some(options) = valid_options(packet, NEIGHBOR_SOLICITATION_LEN) else { return Answer::Nothing };
    let from = packet.src_addr();
    if from.is_unspecified() && (!packet.dst_addr().is_multicast() || options.has_source) {
        return Answer::Nothing;
    }
    let target_addr = Icmpv6Packet::new_unchecked(packet.payload()).target_addr();
    if !is_own_v6(target_addr) {
        return Answer::Nothing;
    }
    // The guest tries to use one of our addresses: tell all nodes that it is taken (RFC 4861 §7.2.4).
    let (to, solicited) = if from.is_unspecified() {
        (IPV6_LINK_LOCAL_ALL_NODES, NdiscNeighborFlags::empty())
    } else {
        (from, NdiscNeighborFlags::SOLICITED)
    };
    let advertisement = NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE | solicited,
        target_addr,
        lladdr: Some(EthernetAddress(GATEWAY_MAC).into()),
    };
    send(target_addr, to, advertisement, &[], reply)
}

/// Answers a router solicitation with the router advertisement.
pub(super) fn answer_router(packet: &Ipv6Packet<&[u8]>, mtu: u16, reply: &mut Reply<'_>) -> Answer {
    let Some(options) = valid_options(packet, ROUTER_SOLICITATION_LEN) else { return Answer::Nothing };
    let from = packet.src_addr();
    if from.is_unspecified() && options.has_source {
        return Answer::Nothing;
    }
    let to = if from.is_unspecified() { IPV6_LINK_LOCAL_ALL_NODES } else { from };
    advertise(to, mtu, reply)
}

/// Writes the router advertisement.
pub(super) fn advertise(to: Ipv6Addr, mtu: u16, reply: &mut Reply<'_>) -> Answer {
    let advertisement = NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: ROUTER_LIFETIME,
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr: Some(EthernetAddress(GATEWAY_MAC).into()),
        // The minimum MTU of IPv6; guests ignore smaller ones.
        mtu: (usize::from(mtu) >= IPV6_MIN_MTU).then_some(mtu.into()),
        prefix_info: Some(NdiscPrefixInformation {
            prefix_len: PREFIX_LEN_V6,
            flags: NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF,
            valid_lifetime: DAY,
            preferred_lifetime: DAY,
            prefix: NETWORK_V6,
        }),
    };
    send(GATEWAY_LINK_LOCAL, to, advertisement, &resolver_option(), reply)
}

fn resolver_option() -> [u8; RDNSS_LEN] {
    let mut option = [0; RDNSS_LEN];
    option[0] = RDNSS;
    option[1] = (RDNSS_LEN / 8) as u8;
    option[4..8].copy_from_slice(&(DAY.secs() as u32).to_be_bytes());
    option[8..].copy_from_slice(&RESOLVER_V6.octets());
    option
}

/// Contents of a solicitation's options.
struct Options {
    /// Whether the sender's hardware address is present.
    has_source: bool,
}

/// The options of a solicitation whose fixed part has `len` bytes. `None` if it violates a rule of RFC 4861
/// §6.1.1 or §7.1.1 that both kinds share.
fn valid_options(packet: &Ipv6Packet<&[u8]>, len: usize) -> Option<Options> {
    let icmp = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    let is_valid = packet.hop_limit() == HOP_LIMIT
        && icmp.msg_code() == 0
        && !from.is_multicast()
        && icmp.verify_checksum(&from, &to);
    let mut rest = packet.payload().get(len..).filter(|_| is_valid)?;
    let mut options = Options { has_source: false };
    while !rest.is_empty() {
        let option_len = usize::from(*rest.get(1)?) * 8;
        if option_len == 0 {
            return None;
        }
        options.has_source |= rest[0] == SOURCE_LINK_LAYER_ADDRESS;
        rest = rest.get(option_len..)?;
    }
    Some(options)
}

/// Writes `message` followed by one more option.
fn send(
    from: Ipv6Addr,
    to: Ipv6Addr,
    message: NdiscRepr<'_>,
    option: &[u8],
    reply: &mut Reply<'_>,
) -> Answer {
    let message = Icmpv6Repr::Ndisc(message);
    let len = message.buffer_len();
    let repr = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: len + option.len(),
        hop_limit: HOP_LIMIT,
    };
    let out = reply.ipv6(&repr);
    out[len..].copy_from_slice(option);
    // The checksum covers the whole message, including the extra option.
    message.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(out), &ChecksumCapabilities::default());
    Answer::Reply
}
