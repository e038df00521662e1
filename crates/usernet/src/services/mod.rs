//! The gateway's own services: address resolution and configuration (ARP, neighbour discovery, DHCP, router
//! advertisements) and echo replies. Each reply depends on one frame only; there is no state between frames.
//! Only router advertisements are also sent unsolicited.

mod arp;
mod dhcp;
mod echo;
mod ndp;
mod reply;

use std::net::Ipv4Addr;

use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IPV6_LINK_LOCAL_ALL_NODES, Icmpv6Message as Message,
    Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet, UdpPacket,
};

pub(crate) use self::reply::Answer;
use self::reply::{Reply, is_group, is_own_v6};
use crate::addresses::{BROADCAST_V4, GATEWAY_MAC, GATEWAY_V4, is_gateway, is_resolver};

/// The services of the gateway.
#[derive(Debug)]
pub(crate) struct Services {
    mtu: u16,
}

impl Services {
    /// Creates the services of a link with this MTU. They answer any client, because a guest may change its
    /// hardware address.
    pub(crate) fn new(mtu: u16) -> Self {
        Self { mtu }
    }

    /// Answers frames to the gateway itself: ARP, neighbour and router solicitations, DHCP, and echo requests
    /// to gateway and resolver. `frame` is an Ethernet frame from the guest. The reply, an Ethernet frame
    /// with all checksums, is written to `out`. It is always for the guest only, and never longer than a
    /// frame of the link.
    pub(crate) fn answer(&self, frame: &[u8], out: &mut Vec<u8>) -> Answer {
        out.clear();
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return Answer::Nothing };
        let guest = ethernet.src_addr();
        let is_for_us = ethernet.dst_addr() == EthernetAddress(GATEWAY_MAC) || is_group(ethernet.dst_addr());
        if is_group(guest) || !is_for_us {
            return Answer::Nothing;
        }
        let mut reply = Reply { guest, out };
        match ethernet.ethertype() {
            EthernetProtocol::Arp => arp::answer(ethernet.payload(), &mut reply),
            EthernetProtocol::Ipv4 => self.answer_v4(ethernet.payload(), &mut reply),
            EthernetProtocol::Ipv6 => self.answer_v6(ethernet.payload(), &mut reply),
            EthernetProtocol::Unknown(_) => Answer::Nothing,
        }
    }

    /// Writes an unsolicited router advertisement for hardware address `guest` to `out`. Advertisements
    /// expire, and a guest doesn't ask again (RFC 4861 §6.2.4, §6.3.7).
    pub(crate) fn advertise(&self, guest: [u8; 6], out: &mut Vec<u8>) -> Answer {
        let mut reply = Reply { guest: EthernetAddress(guest), out };
        ndp::advertise(IPV6_LINK_LOCAL_ALL_NODES, self.mtu, &mut reply)
    }

    /// Writes a broadcast ARP request for the guest's address to `out`.
    pub(crate) fn ask_for_guest(&self, out: &mut Vec<u8>) -> Answer {
        arp::ask_for_guest(&mut Reply { guest: EthernetAddress::BROADCAST, out })
    }

    fn answer_v4(&self, packet: &[u8], reply: &mut Reply<'_>) -> Answer {
        let Ok(packet) = Ipv4Packet::new_checked(packet) else { return Answer::NotMine };
        let to = packet.dst_addr();
        let is_echo = packet.next_header() == IpProtocol::Icmp
            && (is_gateway(to.into()) || is_resolver(to.into()))
            && packet.payload().first() == Some(&echo::REQUEST_V4);
        let is_dhcp = packet.next_header() == IpProtocol::Udp
            && [Ipv4Addr::BROADCAST, BROADCAST_V4, GATEWAY_V4].contains(&to)
            && UdpPacket::new_checked(packet.payload()).is_ok_and(|udp| udp.dst_port() == dhcp::SERVER_PORT);
        if !(is_echo || is_dhcp) {
            return Answer::NotMine;
        }
        // Requests to the gateway itself fit in one frame: fragments are dropped.
        let is_whole = !packet.more_frags() && packet.frag_offset() == 0;
        if packet.version() != 4 || !packet.verify_checksum() || !is_whole {
            return Answer::Nothing;
        }
        if is_dhcp {
            dhcp::answer(&packet, self.mtu, reply)
        } else {
            echo::answer_v4(&packet, self.mtu, reply)
        }
    }

    fn answer_v6(&self, packet: &[u8], reply: &mut Reply<'_>) -> Answer {
        let Ok(packet) = Ipv6Packet::new_checked(packet) else { return Answer::NotMine };
        if packet.version() != 6 || packet.next_header() != IpProtocol::Icmpv6 {
            return Answer::NotMine;
        }
        let Ok(icmp) = Icmpv6Packet::new_checked(packet.payload()) else { return Answer::Nothing };
        match icmp.msg_type() {
            Message::EchoRequest if is_own_v6(packet.dst_addr()) => echo::answer_v6(&packet, self.mtu, reply),
            Message::NeighborSolicit => ndp::answer_neighbor(&packet, reply),
            Message::RouterSolicit => ndp::answer_router(&packet, self.mtu, reply),
            // Messages between neighbours and multicast members.
            Message::RouterAdvert | Message::NeighborAdvert | Message::Redirect => Answer::Nothing,
            Message::MldQuery | Message::MldReport => Answer::Nothing,
            _ => Answer::NotMine,
        }
    }
}

#[cfg(test)]
mod tests;
