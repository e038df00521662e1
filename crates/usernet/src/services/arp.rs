//! ARP (RFC 826) for the addresses of gateway and resolver.

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol};

use super::reply::{Answer, Reply};
use crate::addresses::{GATEWAY_MAC, GATEWAY_V4, GUEST_V4, is_gateway, is_resolver};

/// Answers a request for the gateway's or resolver's address. A request for the guest's own address, which
/// detects conflicts (RFC 5227), must not be answered.
pub(super) fn answer(packet: &[u8], reply: &mut Reply<'_>) -> Answer {
    let Ok(ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr: wanted,
        ..
    }) = ArpPacket::new_checked(packet).and_then(|packet| ArpRepr::parse(&packet))
    else {
        return Answer::Nothing;
    };
    if !is_gateway(wanted.into()) && !is_resolver(wanted.into()) {
        return Answer::Nothing;
    }
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(GATEWAY_MAC),
        source_protocol_addr: wanted,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    let packet = reply.ethernet(reply.guest, EthernetProtocol::Arp, repr.buffer_len());
    repr.emit(&mut ArpPacket::new_unchecked(packet));
    Answer::Reply
}

/// The gateway's broadcast request for the guest's address.
pub(super) fn ask_for_guest(question: &mut Reply<'_>) -> Answer {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(GATEWAY_MAC),
        source_protocol_addr: GATEWAY_V4,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: GUEST_V4,
    };
    let packet = question.ethernet(question.guest, EthernetProtocol::Arp, repr.buffer_len());
    repr.emit(&mut ArpPacket::new_unchecked(packet));
    Answer::Reply
}
