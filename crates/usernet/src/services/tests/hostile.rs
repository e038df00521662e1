//! Whatever the guest sends, there is no reply, or a frame to the guest.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// A valid frame of each kind.
fn good_frames() -> Vec<Vec<u8>> {
    let dhcp = dhcp::query("0000", "3501 01 3d07 01 525400123456 3902 0240 3707 01 03 06 0c 0f 1c 2a");
    let mut frames: Vec<Vec<u8>> = [
        ARP_REQUEST,
        ECHO_REQUEST_V4,
        ECHO_REQUEST_V6,
        ndp::SOLICITATION_LINK_LOCAL,
        ndp::ROUTER_SOLICITATION,
    ]
    .into_iter()
    .map(hex)
    .collect();
    frames.push(dhcp);
    frames
}

/// Sends a frame and checks the reply's headers: to the guest or to all, from the gateway, with matching
/// lengths.
fn check(frame: &[u8], mtu: u16) {
    let mut out = Vec::new();
    let answer = Services::new(mtu).answer(frame, &mut out);
    if answer != Answer::Reply {
        assert!(out.is_empty());
        return;
    }
    let ethernet = EthernetFrame::new_checked(&out[..]).unwrap();
    assert_eq!(ethernet.src_addr(), EthernetAddress(GATEWAY_MAC));
    assert!(ethernet.dst_addr().is_broadcast() || ethernet.dst_addr().is_unicast());
    match ethernet.ethertype() {
        EthernetProtocol::Arp => assert_eq!(out.len(), 42),
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            assert!(packet.verify_checksum());
            assert_eq!(usize::from(packet.total_len()), ethernet.payload().len());
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
            assert_eq!(packet.total_len(), ethernet.payload().len());
            let icmp = Icmpv6Packet::new_checked(packet.payload()).unwrap();
            assert!(icmp.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
        }
        EthernetProtocol::Unknown(ethertype) => panic!("an answer of ethertype {ethertype:#06x}"),
    }
}

/// Corrects the checksums where there is room for them, so that the code after the check is reached.
fn mend(frame: &mut [u8]) {
    if let Some(packet) = frame.get_mut(14..) {
        if let Ok(mut v4) = Ipv4Packet::new_checked(&mut *packet) {
            v4.fill_checksum();
            if v4.next_header() == IpProtocol::Icmp && v4.payload_mut().len() >= 4 {
                smoltcp::wire::Icmpv4Packet::new_unchecked(v4.payload_mut()).fill_checksum();
            }
        } else if let Ok(mut v6) = Ipv6Packet::new_checked(packet) {
            let (from, to) = (v6.src_addr(), v6.dst_addr());
            if v6.payload_mut().len() >= 4 {
                Icmpv6Packet::new_unchecked(v6.payload_mut()).fill_checksum(&from, &to);
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_are_answered_well_or_not_at_all(frame in vec(any::<u8>(), 0..400), mtu: u16) {
        check(&frame, mtu);
    }

    /// Random bytes after the headers that lead to each service.
    #[test]
    fn random_bytes_behind_good_header_are_answered_well_or_not_at_all(
        good in select(good_frames()),
        tail in vec(any::<u8>(), 0..400),
        cut: Index,
    ) {
        let mut frame = good[..cut.index(good.len())].to_vec();
        frame.extend(tail);
        mend(&mut frame);
        check(&frame, 1500);
    }

    #[test]
    fn truncated_frame_is_answered_well_or_not_at_all(good in select(good_frames()), cut: Index) {
        check(&good[..cut.index(good.len())], 1500);
    }

    #[test]
    fn flipped_frame_is_answered_well_or_not_at_all(
        good in select(good_frames()),
        flips in vec((any::<Index>(), any::<u8>()), 1..6),
        is_mended: bool,
        mtu: u16,
    ) {
        let mut frame = good;
        for (at, value) in flips {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if is_mended {
            mend(&mut frame);
        }
        check(&frame, mtu);
    }
}
