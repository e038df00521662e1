mod client;
mod dhcp;
mod hostile;
mod ndp;

use smoltcp::wire::{ETHERNET_HEADER_LEN, IPV4_HEADER_LEN};

use super::*;

/// The guest's hardware address in all frames here.
const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

const ECHO_REQUEST_V4: &str = "52550a000202 525400123456 0800
    4500 0023 4711 4000 4001 dbb8 0a00020f 0a000202
    0800 549d 1234 0001 61626364656667";

const ECHO_REQUEST_V6: &str = "52550a000202 525400123456 86dd
    60000000 000f 3a 40 fd766d6d00000000505400fffe123456 fd766d6d000000000000000000000003
    8000 82cb 1234 0001 61626364656667";

/// Who has 10.0.2.2, says 10.0.2.15.
const ARP_REQUEST: &str = "ffffffffffff 525400123456 0806
    0001 0800 06 04 0001 525400123456 0a00020f 000000000000 0a000202";

/// Decodes hexadecimal digits; white space is ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// The reply to `frame` on a link with an MTU of 1500.
fn ask(frame: &[u8]) -> (Answer, Vec<u8>) {
    let mut out = vec![0xee; 7];
    let answer = Services::new(1500).answer(frame, &mut out);
    (answer, out)
}

#[track_caller]
fn assert_reply(request: &str, reply: &str) {
    assert_eq!(ask(&hex(request)), (Answer::Reply, hex(reply)));
}

#[track_caller]
fn assert_no_reply(request: &[u8], answer: Answer) {
    assert_eq!(ask(request), (answer, Vec::new()));
}

/// `frame` with `bytes` written at offset `at`.
fn with(frame: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = hex(frame);
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// Like `with`, for an IPv4 packet: the header's checksum is corrected.
fn with_v4(frame: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = with(frame, at, bytes);
    Ipv4Packet::new_unchecked(&mut frame[ETHERNET_HEADER_LEN..]).fill_checksum();
    frame
}

#[test]
fn arp_request_for_gateway_is_answered() {
    assert_reply(
        ARP_REQUEST,
        "525400123456 52550a000202 0806
         0001 0800 06 04 0002 52550a000202 0a000202 525400123456 0a00020f",
    );
}

#[test]
fn arp_request_for_resolver_is_answered() {
    let (answer, reply) = ask(&with(ARP_REQUEST, 38, &[10, 0, 2, 3]));
    assert_eq!(answer, Answer::Reply);
    assert_eq!(reply[28..32], [10, 0, 2, 3]);
}

/// Kernels pad to the minimum Ethernet frame, 60 bytes.
#[test]
fn arp_request_with_padding_is_answered() {
    let mut request = hex(ARP_REQUEST);
    request.resize(60, 0);
    assert_eq!(ask(&request).0, Answer::Reply);
}

/// The guest asks for its own address from 0.0.0.0. A reply would make it give up the address.
#[test]
fn arp_probe_for_guest_is_not_answered() {
    let probe = "ffffffffffff 525400123456 0806
        0001 0800 06 04 0001 525400123456 00000000 000000000000 0a00020f";
    assert_no_reply(&hex(probe), Answer::Nothing);
}

#[test]
fn arp_announcement_of_guest_is_not_answered() {
    let announcement = "ffffffffffff 525400123456 0806
        0001 0800 06 04 0001 525400123456 0a00020f 000000000000 0a00020f";
    assert_no_reply(&hex(announcement), Answer::Nothing);
}

#[test]
fn arp_for_others_or_reply_is_not_answered() {
    assert_no_reply(&with(ARP_REQUEST, 38, &[10, 0, 2, 4]), Answer::Nothing);
    // Operation 2, a reply.
    assert_no_reply(&with(ARP_REQUEST, 20, &[0, 2]), Answer::Nothing);
}

#[test]
fn echo_v4_to_gateway_is_answered() {
    assert_reply(
        ECHO_REQUEST_V4,
        "525400123456 52550a000202 0800
         4500 0023 0000 4000 4001 22ca 0a000202 0a00020f
         0000 5c9d 1234 0001 61626364656667",
    );
}

#[test]
fn echo_v6_to_resolver_is_answered() {
    assert_reply(
        ECHO_REQUEST_V6,
        "525400123456 52550a000202 86dd
         60000000 000f 3a 40 fd766d6d000000000000000000000003 fd766d6d00000000505400fffe123456
         8100 81cb 1234 0001 61626364656667",
    );
}

#[test]
fn echo_v4_to_resolver_is_answered_from_there() {
    let (answer, reply) = ask(&with_v4(ECHO_REQUEST_V4, 30, &[10, 0, 2, 3]));
    assert_eq!(answer, Answer::Reply);
    assert_eq!(reply[26..34], [10, 0, 2, 3, 10, 0, 2, 15]);
}

#[test]
fn echo_to_somebody_else_is_not_ours() {
    assert_no_reply(&with_v4(ECHO_REQUEST_V4, 30, &[192, 0, 2, 7]), Answer::NotMine);
    // 2001:db8:: and the rest of the address.
    assert_no_reply(&with(ECHO_REQUEST_V6, 38, &[0x20, 0x01, 0x0d, 0xb8]), Answer::NotMine);
}

/// Type 3, destination unreachable, is about a flow.
#[test]
fn icmp_error_to_gateway_is_not_ours() {
    assert_no_reply(&with(ECHO_REQUEST_V4, 34, &[3]), Answer::NotMine);
    assert_no_reply(&with(ECHO_REQUEST_V6, 54, &[1]), Answer::NotMine);
}

#[test]
fn echo_with_wrong_checksum_is_dropped() {
    assert_no_reply(&with(ECHO_REQUEST_V4, 36, &[0, 0]), Answer::Nothing);
    assert_no_reply(&with(ECHO_REQUEST_V6, 56, &[0, 0]), Answer::Nothing);
    // The IPv4 header's.
    assert_no_reply(&with(ECHO_REQUEST_V4, 24, &[0, 0]), Answer::Nothing);
}

#[test]
fn echo_fragment_is_dropped() {
    // "More fragments", then an offset of 8 bytes.
    assert_no_reply(&with_v4(ECHO_REQUEST_V4, 20, &[0x20, 0]), Answer::Nothing);
    assert_no_reply(&with_v4(ECHO_REQUEST_V4, 20, &[0, 1]), Answer::Nothing);
}

/// A reply would go to a group that didn't ask.
#[test]
fn echo_from_group_address_is_dropped() {
    assert_no_reply(&with_v4(ECHO_REQUEST_V4, 26, &[255, 255, 255, 255]), Answer::Nothing);
    assert_no_reply(&with_v4(ECHO_REQUEST_V4, 26, &[224, 0, 0, 1]), Answer::Nothing);
    assert_no_reply(&with_v4(ECHO_REQUEST_V4, 26, &[0, 0, 0, 0]), Answer::Nothing);
}

/// The frame that `ping -s` sends with `data` bytes.
fn echo_of(data: usize) -> Vec<u8> {
    let mut frame = hex(ECHO_REQUEST_V4);
    frame.truncate(ETHERNET_HEADER_LEN + IPV4_HEADER_LEN + 8);
    frame.resize(frame.len() + data, 0x5a);
    let len = frame.len() - ETHERNET_HEADER_LEN;
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET_HEADER_LEN..]);
    packet.set_total_len(len.try_into().unwrap());
    packet.fill_checksum();
    smoltcp::wire::Icmpv4Packet::new_unchecked(packet.payload_mut()).fill_checksum();
    frame
}

/// 1472 bytes of data fill an MTU of 1500.
#[test]
fn echo_of_any_length_that_fits_is_answered() {
    for data in [0, 1, 1471, 1472] {
        let request = echo_of(data);
        let (answer, reply) = ask(&request);
        assert_eq!(answer, Answer::Reply, "{data}");
        assert_eq!(reply.len(), request.len());
        assert_eq!(reply[38..], request[38..]);
        let packet = Ipv4Packet::new_checked(&reply[14..]).unwrap();
        assert!(smoltcp::wire::Icmpv4Packet::new_checked(packet.payload()).unwrap().verify_checksum());
    }
    assert_no_reply(&echo_of(1473), Answer::Nothing);
}

#[test]
fn frame_to_or_from_others_is_dropped() {
    // To another station, then from a group address.
    assert_no_reply(&with(ECHO_REQUEST_V4, 0, &[0x52, 0x54, 0, 0, 0, 1]), Answer::Nothing);
    assert_no_reply(&with(ECHO_REQUEST_V4, 6, &[0xff; 6]), Answer::Nothing);
    assert_no_reply(&with(ARP_REQUEST, 6, &[0x33, 0x33, 0, 0, 0, 1]), Answer::Nothing);
}

#[test]
fn frame_of_other_ethertype_is_dropped() {
    // 802.1Q, and an LLC length.
    assert_no_reply(&with(ECHO_REQUEST_V4, 12, &[0x81, 0x00]), Answer::Nothing);
    assert_no_reply(&with(ECHO_REQUEST_V4, 12, &[0x00, 0x26]), Answer::Nothing);
}

#[test]
fn tcp_to_gateway_is_not_ours() {
    assert_no_reply(&with_v4(ECHO_REQUEST_V4, 23, &[6]), Answer::NotMine);
    assert_no_reply(&with(ECHO_REQUEST_V6, 20, &[6]), Answer::NotMine);
}

/// Replies go to the frame's source only.
#[test]
fn answer_goes_to_source_of_frame() {
    let other = [0x52, 0x54, 0, 0, 0, 9];
    let (answer, reply) = ask(&with(ECHO_REQUEST_V4, 6, &other));
    assert_eq!(answer, Answer::Reply);
    assert_eq!(reply[..12], [other, GATEWAY_MAC].concat());
}
