//! Neighbour discovery (RFC 4861): where gateway and resolver are, and by router advertisement which prefix the guest
//! makes its address of, and which resolver it asks (RFC 8106).

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

/// A message with a lower one has passed a router, so comes from elsewhere (RFC 4861 §3.1).
const HOP_LIMIT: u8 = 255;

/// How long the prefix and the resolver are good for.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the router is good for: the most that 16 bits of seconds hold (RFC 8319 allows it), some 18 hours.
const ROUTER_LIFETIME: Duration = Duration::from_secs(u16::MAX as u64);

/// Where options begin behind a router solicitation and behind a neighbour solicitation (§4.1, §4.3).
const ROUTER_SOLICITATION_LEN: usize = 8;
const NEIGHBOR_SOLICITATION_LEN: usize = 24;

/// The option for the sender's hardware address (§4.6.1).
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;

/// The option for a resolver (RFC 8106 §5.1): type, length in units of 8, 2 reserved, 4 of lifetime, the address.
const RDNSS: u8 = 25;
const RDNSS_LEN: usize = 24;

/// Answers a neighbour solicitation for one of the gateway's or resolver's addresses. Those for the guest's own, with
/// which it looks for another that uses it (RFC 4862 §5.4), must stay without answer.
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
    // The guest tries one of our addresses for itself: tell all that it's taken (RFC 4861 §7.2.4).
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

/// Answers a router solicitation with the one advertisement there is.
pub(super) fn answer_router(packet: &Ipv6Packet<&[u8]>, mtu: u16, reply: &mut Reply<'_>) -> Answer {
    let Some(options) = valid_options(packet, ROUTER_SOLICITATION_LEN) else { return Answer::Nothing };
    let from = packet.src_addr();
    if from.is_unspecified() && options.has_source {
        return Answer::Nothing;
    }
    let to = if from.is_unspecified() { IPV6_LINK_LOCAL_ALL_NODES } else { from };
    advertise(to, mtu, reply)
}

/// The one advertisement there is.
pub(super) fn advertise(to: Ipv6Addr, mtu: u16, reply: &mut Reply<'_>) -> Answer {
    let advertisement = NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: ROUTER_LIFETIME,
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr: Some(EthernetAddress(GATEWAY_MAC).into()),
        // IPv6 knows no smaller one, and a guest ignores it.
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

/// What the options of a solicitation say.
struct Options {
    /// The sender's hardware address is among them.
    has_source: bool,
}

/// The options of a solicitation whose own part is `len` long, or nothing if a rule of RFC 4861 §6.1.1 or §7.1.1 that
/// holds for both is broken.
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

/// Writes `message` with one more option behind it.
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
    // The checksum is of the whole, options of ours as well.
    message.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(out), &ChecksumCapabilities::default());
    Answer::Reply
}
