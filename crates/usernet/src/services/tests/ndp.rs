use super::*;

/// From Linux, for its default router: the gateway's link-local address.
pub(super) const SOLICITATION_LINK_LOCAL: &str = "3333ff000202 525400123456 86dd
    60000000 0020 3a ff fe80000000000000505400fffe123456 ff0200000000000000000001ff000202
    8700 14cb 00000000 fe8000000000000050550afffe000202 0101 525400123456";

/// From Linux, without an address yet: duplicate detection for fd76:6d6d::5054:ff:fe12:3456.
const PROBE_FOR_GUEST: &str = "3333ff123456 525400123456 86dd
    60000000 0018 3a ff 00000000000000000000000000000000 ff0200000000000000000001ff123456
    8700 579f 00000000 fd766d6d00000000505400fffe123456";

/// The same for the gateway's address.
const PROBE_FOR_GATEWAY: &str = "3333ff000002 525400123456 86dd
    60000000 0018 3a ff 00000000000000000000000000000000 ff0200000000000000000001ff000002
    8700 0fc0 00000000 fd766d6d000000000000000000000002";

pub(super) const ROUTER_SOLICITATION: &str = "333300000002 525400123456 86dd
    60000000 0010 3a ff fe80000000000000505400fffe123456 ff020000000000000000000000000002
    8500 71b5 00000000 0101 525400123456";

const ROUTER_SOLICITATION_FROM_NOBODY: &str = "333300000002 525400123456 86dd
    60000000 0008 3a ff 00000000000000000000000000000000 ff020000000000000000000000000002
    8500 7bb8 00000000";

/// `frame` with `bytes` written at offset `at`; the ICMPv6 checksum is corrected.
fn with_v6(frame: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = with(frame, at, bytes);
    let mut packet = Ipv6Packet::new_unchecked(&mut frame[ETHERNET_HEADER_LEN..]);
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    Icmpv6Packet::new_unchecked(packet.payload_mut()).fill_checksum(&from, &to);
    frame
}

#[test]
fn neighbor_solicitation_for_link_local_address_is_answered() {
    assert_reply(
        SOLICITATION_LINK_LOCAL,
        "525400123456 52550a000202 86dd
         60000000 0020 3a ff fe8000000000000050550afffe000202 fe80000000000000505400fffe123456
         8800 015e e0000000 fe8000000000000050550afffe000202 0201 52550a000202",
    );
}

/// A probe of a known neighbour is sent to its own address, without options (RFC 4861 §7.3.3).
#[test]
fn neighbor_solicitation_to_resolver_itself_is_answered() {
    assert_reply(
        "52550a000202 525400123456 86dd
         60000000 0018 3a ff fd766d6d00000000505400fffe123456 fd766d6d000000000000000000000003
         8700 b43d 00000000 fd766d6d000000000000000000000003",
        "525400123456 52550a000202 86dd
         60000000 0020 3a ff fd766d6d000000000000000000000003 fd766d6d00000000505400fffe123456
         8800 72dc e0000000 fd766d6d000000000000000000000003 0201 52550a000202",
    );
}

#[test]
fn probe_for_guests_own_address_is_not_answered() {
    assert_no_reply(&hex(PROBE_FOR_GUEST), Answer::Nothing);
}

/// To all nodes, unsolicited.
#[test]
fn probe_for_gateways_address_is_answered_to_all() {
    assert_reply(
        PROBE_FOR_GATEWAY,
        "525400123456 52550a000202 86dd
         60000000 0020 3a ff fd766d6d000000000000000000000002 ff020000000000000000000000000001
         8800 a27b a0000000 fd766d6d000000000000000000000002 0201 52550a000202",
    );
}

#[test]
fn neighbor_solicitation_for_others_is_not_answered() {
    // The last two bytes of the target.
    assert_no_reply(&with_v6(SOLICITATION_LINK_LOCAL, 76, &[0x02, 0x03]), Answer::Nothing);
}

#[test]
fn solicitation_that_breaks_a_rule_is_not_answered() {
    // Hop limit 254: it passed a router.
    assert_no_reply(&with(SOLICITATION_LINK_LOCAL, 21, &[254]), Answer::Nothing);
    assert_no_reply(&with(ROUTER_SOLICITATION, 21, &[254]), Answer::Nothing);
    // The checksum.
    assert_no_reply(&with(SOLICITATION_LINK_LOCAL, 56, &[0, 0]), Answer::Nothing);
    assert_no_reply(&with(ROUTER_SOLICITATION, 56, &[0, 0]), Answer::Nothing);
    // The code.
    assert_no_reply(&with_v6(SOLICITATION_LINK_LOCAL, 55, &[1]), Answer::Nothing);
    assert_no_reply(&with_v6(ROUTER_SOLICITATION, 55, &[1]), Answer::Nothing);
    // An option of length 0, on which a careless parser loops forever; one longer than the message.
    assert_no_reply(&with_v6(SOLICITATION_LINK_LOCAL, 79, &[0]), Answer::Nothing);
    assert_no_reply(&with_v6(ROUTER_SOLICITATION, 63, &[0]), Answer::Nothing);
    assert_no_reply(&with_v6(ROUTER_SOLICITATION, 63, &[2]), Answer::Nothing);
    // The sender has no address, but gives a hardware address.
    assert_no_reply(&with_v6(ROUTER_SOLICITATION, 22, &[0; 16]), Answer::Nothing);
    assert_no_reply(&with_v6(SOLICITATION_LINK_LOCAL, 22, &[0; 16]), Answer::Nothing);
    // The sender is a group.
    assert_no_reply(&with_v6(ROUTER_SOLICITATION, 22, &[0xff]), Answer::Nothing);
}

/// Hop limit 64, neither managed nor other, 65535 s; the hardware address; MTU 1500; fd76:6d6d::/64 on link and for
/// addresses, a day; the resolver, a day.
#[test]
fn router_solicitation_is_answered_with_prefix_mtu_and_resolver() {
    assert_reply(
        ROUTER_SOLICITATION,
        "525400123456 52550a000202 86dd
         60000000 0058 3a ff fe8000000000000050550afffe000202 fe80000000000000505400fffe123456
         8600 cc0a 40 00 ffff 00000000 00000000
         0101 52550a000202
         0501 0000 000005dc
         0304 40 c0 00015180 00015180 00000000 fd766d6d000000000000000000000000
         1903 0000 00015180 fd766d6d000000000000000000000003",
    );
}

#[test]
fn router_solicitation_from_no_address_is_answered_to_all() {
    let (answer, reply) = ask(&hex(ROUTER_SOLICITATION_FROM_NOBODY));
    assert_eq!(answer, Answer::Reply);
    assert_eq!(reply[..6], GUEST_MAC);
    assert_eq!(reply[38..54], hex("ff020000000000000000000000000001"));
    assert_eq!(reply[54..58], hex("8600 4f44"));
}

/// 1280 is the least MTU of IPv6; an option with less would be ignored.
#[test]
fn router_advertisement_of_small_link_leaves_out_mtu() {
    let mut out = Vec::new();
    assert_eq!(Services::new(1280).answer(&hex(ROUTER_SOLICITATION), &mut out), Answer::Reply);
    assert_eq!(out[78..86], hex("0501 0000 00000500"));
    assert_eq!(Services::new(1279).answer(&hex(ROUTER_SOLICITATION), &mut out), Answer::Reply);
    assert_eq!(out[78..80], hex("0304"));
}

/// From a guest that routes for others, or that answers a neighbour on its own bridge.
#[test]
fn router_advertisement_and_neighbor_advertisement_of_guest_are_dropped() {
    assert_no_reply(&with_v6(ROUTER_SOLICITATION, 54, &[134]), Answer::Nothing);
    assert_no_reply(&with_v6(SOLICITATION_LINK_LOCAL, 54, &[136]), Answer::Nothing);
}

#[test]
fn echo_to_link_local_address_is_answered() {
    let gateway = hex("fe8000000000000050550afffe000202");
    let mut frame = with(ECHO_REQUEST_V6, 38, &gateway);
    let mut packet = Ipv6Packet::new_unchecked(&mut frame[ETHERNET_HEADER_LEN..]);
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    Icmpv6Packet::new_unchecked(packet.payload_mut()).fill_checksum(&from, &to);
    let (answer, reply) = ask(&frame);
    assert_eq!(answer, Answer::Reply);
    assert_eq!(reply[22..38], gateway);
}
