//! Echo replies (RFC 792, RFC 4443 §4.2) from gateway and resolver.

use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol,
    Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
};

use super::reply::{Answer, Reply};
use crate::addresses::can_be_destination;

/// ICMP type of an echo request.
pub(super) const REQUEST_V4: u8 = 8;

const HOP_LIMIT: u8 = 64;

/// Returns the request's identifier, sequence number and data from the address to which it was sent. Requests
/// longer than `mtu` aren't answered, because the guest's buffers can't hold the reply.
pub(super) fn answer_v4(request: &Ipv4Packet<&[u8]>, mtu: u16, reply: &mut Reply<'_>) -> Answer {
    let message = request.payload();
    let Ok(icmp) = Icmpv4Packet::new_checked(message) else { return Answer::Nothing };
    let is_valid = icmp.msg_code() == 0 && icmp.verify_checksum();
    if !is_valid
        || !can_be_destination(request.src_addr().into())
        || IPV4_HEADER_LEN + message.len() > mtu.into()
    {
        return Answer::Nothing;
    }
    let repr = Ipv4Repr {
        src_addr: request.dst_addr(),
        dst_addr: request.src_addr(),
        next_header: IpProtocol::Icmp,
        payload_len: message.len(),
        hop_limit: HOP_LIMIT,
    };
    let out = reply.ipv4(reply.guest, &repr);
    out.copy_from_slice(message);
    let mut icmp = Icmpv4Packet::new_unchecked(out);
    icmp.set_msg_type(Icmpv4Message::EchoReply);
    icmp.fill_checksum();
    Answer::Reply
}

/// Like `answer_v4`.
pub(super) fn answer_v6(request: &Ipv6Packet<&[u8]>, mtu: u16, reply: &mut Reply<'_>) -> Answer {
    let message = request.payload();
    let Ok(icmp) = Icmpv6Packet::new_checked(message) else { return Answer::Nothing };
    let (from, to) = (request.src_addr(), request.dst_addr());
    let is_valid = icmp.msg_code() == 0 && icmp.verify_checksum(&from, &to);
    if !is_valid || !can_be_destination(from.into()) || IPV6_HEADER_LEN + message.len() > mtu.into() {
        return Answer::Nothing;
    }
    let repr = Ipv6Repr {
        src_addr: to,
        dst_addr: from,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.len(),
        hop_limit: HOP_LIMIT,
    };
    let out = reply.ipv6(&repr);
    out.copy_from_slice(message);
    let mut icmp = Icmpv6Packet::new_unchecked(out);
    icmp.set_msg_type(Icmpv6Message::EchoReply);
    icmp.fill_checksum(&to, &from);
    Answer::Reply
}
