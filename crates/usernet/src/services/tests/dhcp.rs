use smoltcp::wire::{DhcpFlags, DhcpMessageType, DhcpOpCode, DhcpPacket, Ipv4Address};

use super::*;

/// A decoded reply.
struct Received {
    /// Hardware and IP address of the destination.
    to: ([u8; 6], Ipv4Addr),
    message: Vec<u8>,
}

impl Received {
    /// Decodes a frame, and checks its headers and checksums.
    fn decode(frame: &[u8]) -> Self {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        assert_eq!(ethernet.src_addr(), EthernetAddress(GATEWAY_MAC));
        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!(ip.src_addr(), GATEWAY_V4);
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        assert!(udp.checksum() != 0 && udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
        assert_eq!((udp.src_port(), udp.dst_port()), (67, 68));
        Self { to: (ethernet.dst_addr().0, ip.dst_addr()), message: udp.payload().to_vec() }
    }

    fn packet(&self) -> DhcpPacket<&[u8]> {
        DhcpPacket::new_checked(&self.message[..]).unwrap()
    }

    fn option(&self, kind: u8) -> Option<Vec<u8>> {
        self.packet().options().find(|option| option.kind == kind).map(|option| option.data.to_vec())
    }

    fn message_type(&self) -> DhcpMessageType {
        self.option(53).unwrap()[0].into()
    }
}

/// A frame with a message from `from` to `to`, with these flags, client address and options.
fn query_between(from: [u8; 4], to: [u8; 4], flags: &str, ciaddr: &str, options: &str) -> Vec<u8> {
    let mut message = hex(&format!("01 01 06 00 3903f326 0000 {flags} {ciaddr} 00000000 00000000 00000000"));
    message.extend(GUEST_MAC);
    message.resize(236, 0);
    message.extend(hex("63825363"));
    message.extend(hex(options));
    message.push(255);
    message.resize(message.len().max(300), 0);
    let mut frame = hex("ffffffffffff 525400123456 0800");
    let udp_len = u16::try_from(8 + message.len()).unwrap();
    let mut packet = hex("4500 0000 0000 0000 40 11 0000");
    packet.extend(from.into_iter().chain(to));
    // 68 to 67; the checksum is offloaded to the device.
    packet.extend(hex("0044 0043"));
    packet.extend(udp_len.to_be_bytes());
    packet.extend([0xba, 0xad]);
    packet.extend(message);
    let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
    ip.set_total_len(20 + udp_len);
    ip.fill_checksum();
    frame.extend(packet);
    frame
}

/// A message as sent by a client without an address.
pub(super) fn query(flags: &str, options: &str) -> Vec<u8> {
    query_between([0, 0, 0, 0], [255, 255, 255, 255], flags, "00000000", options)
}

#[track_caller]
fn answered(frame: &[u8]) -> Received {
    let (answer, reply) = ask(frame);
    assert_eq!(answer, Answer::Reply);
    Received::decode(&reply)
}

const TO_GUEST: ([u8; 6], Ipv4Addr) = (GUEST_MAC, Ipv4Addr::new(10, 0, 2, 15));
const TO_ALL: ([u8; 6], Ipv4Addr) = ([0xff; 6], Ipv4Addr::BROADCAST);

/// What udhcpc (busybox 1.36) sends: client identifier, message size 576, requests for mask, router, DNS,
/// host name, domain, broadcast address and NTP; "udhcp 1.36.1".
const UDHCPC: &str = "3d07 01 525400123456 3902 0240 3707 01 03 06 0c 0f 1c 2a 3c0c 756468637020312e33362e31";

/// systemd-networkd (252): an identifier of RFC 4361; requests MTU and static routes, among others.
const NETWORKD: &str =
    "3d13 ff 9f6e8524 00020000ab11 1f2b3c4d5e6f7081 370b 01 03 0c 0f 06 21 79 2a 1a 78 77 3902 05c0
    0c05 6775657374 5000";

/// dhclient (ISC 4.4): no identifier.
const DHCLIENT: &str = "370d 01 1c 02 03 0f 06 77 0c 2c 2f 1a 79 2a";

#[test]
fn discover_of_udhcpc_is_offered_the_address() {
    let offer = answered(&query("0000", &format!("3501 01 {UDHCPC}")));
    assert_eq!(offer.to, TO_GUEST);
    assert_eq!(offer.message_type(), DhcpMessageType::Offer);
    let packet = offer.packet();
    assert_eq!(packet.opcode(), DhcpOpCode::Reply);
    assert_eq!(packet.transaction_id(), 0x3903_f326);
    assert_eq!(packet.client_hardware_address().0, GUEST_MAC);
    assert_eq!(packet.your_ip(), Ipv4Address::new(10, 0, 2, 15));
    assert_eq!(packet.client_ip(), Ipv4Address::UNSPECIFIED);
    assert_eq!(offer.option(54).unwrap(), [10, 0, 2, 2]);
    // A day.
    assert_eq!(offer.option(51).unwrap(), hex("00015180"));
    assert_eq!(offer.option(1).unwrap(), [255, 255, 255, 0]);
    assert_eq!(offer.option(3).unwrap(), [10, 0, 2, 2]);
    assert_eq!(offer.option(6).unwrap(), [10, 0, 2, 3]);
    assert_eq!(offer.option(26).unwrap(), hex("05dc"));
    assert_eq!(offer.option(28).unwrap(), [10, 0, 2, 255]);
    assert_eq!(offer.option(61).unwrap(), hex("01 525400123456"));
    // There is no domain.
    assert_eq!(offer.option(15), None);
}

/// Some BOOTP clients drop messages shorter than 300 bytes; all accept 548.
#[test]
fn answer_is_as_long_as_any_client_takes() {
    let shortest = answered(&query("0000", "3501 01"));
    assert_eq!(shortest.message.len(), 300);
    // All options that are served, and the longest identifier that is accepted.
    let everything = format!("3501 01 3704 1c 3a 3b 1a 3dfa {}", "ab".repeat(250));
    let longest = answered(&query("0000", &everything));
    assert_eq!(longest.message.len(), 548);
    assert_eq!(longest.option(61).unwrap().len(), 250);
    let too_long = format!("3501 01 3dfb {}", "ab".repeat(251));
    assert_no_reply(&query("0000", &too_long), Answer::Nothing);
}

#[test]
fn request_of_udhcpc_after_offer_is_acknowledged() {
    let request = format!("3501 03 3204 0a00020f 3604 0a000202 {UDHCPC}");
    let ack = answered(&query("0000", &request));
    assert_eq!(ack.to, TO_GUEST);
    assert_eq!(ack.message_type(), DhcpMessageType::Ack);
    assert_eq!(ack.packet().your_ip(), Ipv4Address::new(10, 0, 2, 15));
    assert_eq!(ack.option(51).unwrap(), hex("00015180"));
}

#[test]
fn discover_of_networkd_gets_identifier_back_and_mtu() {
    let offer = answered(&query("0000", &format!("3501 01 {NETWORKD}")));
    assert_eq!(offer.message_type(), DhcpMessageType::Offer);
    assert_eq!(offer.option(61).unwrap(), hex("ff 9f6e8524 00020000ab11 1f2b3c4d5e6f7081"));
    assert_eq!(offer.option(26).unwrap(), hex("05dc"));
    // Rapid commit (RFC 4039) isn't offered: the client continues with a request.
    assert_eq!(offer.option(80), None);
}

/// networkd sets the flag if the link's driver requires it.
#[test]
fn discover_with_broadcast_flag_is_answered_to_all() {
    let offer = answered(&query("8000", &format!("3501 01 {NETWORKD}")));
    assert_eq!(offer.to, TO_ALL);
    assert!(offer.packet().flags().contains(DhcpFlags::BROADCAST));
    assert_eq!(offer.packet().your_ip(), Ipv4Address::new(10, 0, 2, 15));
}

#[test]
fn request_of_dhclient_after_reboot_is_acknowledged() {
    let ack = answered(&query("0000", &format!("3501 03 3204 0a00020f {DHCLIENT}")));
    assert_eq!(ack.to, TO_GUEST);
    assert_eq!(ack.message_type(), DhcpMessageType::Ack);
    assert_eq!(ack.option(61), None);
}

/// The image last ran on another network: without the refusal dhclient would wait for a timeout.
#[test]
fn request_for_address_of_another_network_is_refused_to_all() {
    let nak = answered(&query("0000", &format!("3501 03 3204 c0a80117 {DHCLIENT}")));
    assert_eq!(nak.to, TO_ALL);
    assert_eq!(nak.message_type(), DhcpMessageType::Nak);
    assert_eq!(nak.packet().your_ip(), Ipv4Address::UNSPECIFIED);
    assert_eq!(nak.option(54).unwrap(), [10, 0, 2, 2]);
    assert_eq!(nak.option(51), None);
    assert_eq!(nak.option(3), None);
}

#[test]
fn request_for_another_address_of_the_network_is_refused() {
    let nak = answered(&query("0000", "3501 03 3204 0a000210 3604 0a000202"));
    assert_eq!(nak.message_type(), DhcpMessageType::Nak);
}

/// The guest chose another server, on a bridge of its own.
#[test]
fn request_to_another_server_is_not_answered() {
    let request = query("0000", "3501 03 3204 0a00020f 3604 c0a80101");
    assert_no_reply(&request, Answer::Nothing);
}

#[test]
fn request_for_nothing_is_not_answered() {
    assert_no_reply(&query("0000", "3501 03"), Answer::Nothing);
}

/// At half of the lease the client asks this server, at seven eighths any server. The header then has its
/// address.
#[test]
fn renewing_and_rebinding_client_is_acknowledged_at_its_address() {
    let guest = [10, 0, 2, 15];
    let renewing = query_between(guest, [10, 0, 2, 2], "0000", "0a00020f", &format!("3501 03 {UDHCPC}"));
    let ack = answered(&renewing);
    assert_eq!(ack.to, TO_GUEST);
    assert_eq!(ack.message_type(), DhcpMessageType::Ack);
    assert_eq!(ack.packet().client_ip(), Ipv4Address::new(10, 0, 2, 15));
    // The broadcast flag doesn't matter for a client with an address.
    let rebinding = query_between(guest, [255, 255, 255, 255], "8000", "0a00020f", "3501 03");
    assert_eq!(answered(&rebinding).to, TO_GUEST);
}

#[test]
fn renewing_client_of_another_address_is_refused_to_all() {
    let renewing = query_between([192, 168, 1, 23], [255, 255, 255, 255], "0000", "c0a80117", "3501 03");
    let nak = answered(&renewing);
    assert_eq!(nak.to, TO_ALL);
    assert_eq!(nak.message_type(), DhcpMessageType::Nak);
}

#[test]
fn inform_gets_settings_without_an_address() {
    let inform =
        query_between([10, 0, 2, 20], [255, 255, 255, 255], "0000", "0a000214", "3501 08 3702 06 3a");
    let ack = answered(&inform);
    assert_eq!(ack.to, (GUEST_MAC, Ipv4Addr::new(10, 0, 2, 20)));
    assert_eq!(ack.message_type(), DhcpMessageType::Ack);
    assert_eq!(ack.packet().your_ip(), Ipv4Address::UNSPECIFIED);
    assert_eq!(ack.packet().client_ip(), Ipv4Address::new(10, 0, 2, 20));
    assert_eq!(ack.option(6).unwrap(), [10, 0, 2, 3]);
    assert_eq!(ack.option(51), None);
    assert_eq!(ack.option(58), None);
}

/// Broadcast and multicast aren't a client's address.
#[test]
fn inform_from_no_address_is_not_answered() {
    assert_no_reply(&query("0000", "3501 08"), Answer::Nothing);
    let group = query_between([10, 0, 2, 20], [255, 255, 255, 255], "0000", "e0000001", "3501 08");
    assert_no_reply(&group, Answer::Nothing);
}

#[test]
fn times_of_renewal_are_told_when_asked_for() {
    let offer = answered(&query("0000", "3501 01 3702 3a 3b"));
    // 12 and 21 hours.
    assert_eq!(offer.option(58).unwrap(), hex("0000a8c0"));
    assert_eq!(offer.option(59).unwrap(), hex("00012750"));
    assert_eq!(offer.option(28), None);
}

#[test]
fn release_decline_and_messages_of_servers_are_not_answered() {
    let to_server = |options| query_between([10, 0, 2, 15], [10, 0, 2, 2], "0000", "0a00020f", options);
    assert_no_reply(&to_server("3501 07 3604 0a000202"), Answer::Released);
    assert_no_reply(&query("0000", "3501 04 3204 0a00020f 3604 0a000202"), Answer::Released);
    assert_no_reply(&query("0000", "3501 02"), Answer::Nothing);
    assert_no_reply(&query("0000", "3501 05"), Answer::Nothing);
    // No message type: BOOTP.
    assert_no_reply(&query("0000", "3707 01 03 06 0c 0f 1c 2a"), Answer::Nothing);
}

/// Offsets are in the frame; the message starts at 42.
#[test]
fn malformed_message_is_not_answered() {
    let good = query("0000", "3501 01");
    let bad = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[42 + at] = value;
        frame
    };
    // A reply; wrong hardware type; wrong address length; a relay; a group as client address; wrong magic.
    assert_no_reply(&bad(0, 2), Answer::Nothing);
    assert_no_reply(&bad(1, 6), Answer::Nothing);
    assert_no_reply(&bad(2, 16), Answer::Nothing);
    assert_no_reply(&bad(24, 10), Answer::Nothing);
    assert_no_reply(&bad(28, 0x53), Answer::Nothing);
    assert_no_reply(&bad(236, 0), Answer::Nothing);
    // An option longer than the message, an address of 3 bytes, an empty message type.
    assert_no_reply(&bad(241, 255), Answer::Nothing);
    assert_no_reply(&query("0000", "3501 03 3203 0a0002"), Answer::Nothing);
    assert_no_reply(&query("0000", "3500"), Answer::Nothing);
}

#[test]
fn datagram_to_port_67_elsewhere_is_not_ours() {
    let resolver = query_between([10, 0, 2, 15], [10, 0, 2, 3], "0000", "0a00020f", "3501 03");
    assert_no_reply(&resolver, Answer::NotMine);
    let other = query_between([10, 0, 2, 15], [192, 0, 2, 7], "0000", "0a00020f", "3501 03");
    assert_no_reply(&other, Answer::NotMine);
}

/// From discovery to a lease and through its renewal, with a client that isn't ours.
#[test]
fn smoltcp_client_gets_and_renews_its_address() {
    let mut client = client::Client::new(GUEST_MAC);
    let leased = client.run(0).expect("a lease at the start");
    assert_eq!(leased.address.to_string(), "10.0.2.15/24");
    assert_eq!(leased.router, Some(Ipv4Address::new(10, 0, 2, 2)));
    assert_eq!(leased.dns, [Ipv4Address::new(10, 0, 2, 3)]);
    assert_eq!(client.last_type, Some(DhcpMessageType::Ack));
    // Just after half of the lease: it is renewed, and nothing changes.
    client.last_type = None;
    assert!(client.run(12 * 60 * 60 + 1).is_none());
    assert_eq!(client.last_type, Some(DhcpMessageType::Ack));
    // Just before the first lease would have ended.
    assert!(client.run(24 * 60 * 60 - 1).is_none());
}
