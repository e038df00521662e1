//! Building replies to a frame.

use std::net::Ipv6Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IPV4_HEADER_LEN,
    IPV6_HEADER_LEN, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
};

use crate::addresses::{GATEWAY_LINK_LOCAL, GATEWAY_MAC, is_gateway, is_resolver};

/// How a service handled a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Answer {
    /// The reply has been written.
    Reply,
    /// The frame was for the gateway or for nobody, and has no reply.
    Nothing,
    /// The guest released its address; there is no reply.
    Released,
    /// An IP packet that isn't for the services; it may be malformed.
    NotMine,
}

/// Whether a hardware address is broadcast or multicast.
pub(super) fn is_group(address: EthernetAddress) -> bool {
    !address.is_unicast()
}

pub(super) fn is_own_v6(address: Ipv6Addr) -> bool {
    is_gateway(address.into()) || is_resolver(address.into()) || address == GATEWAY_LINK_LOCAL
}

/// The buffer of a reply, and its receiver.
pub(super) struct Reply<'a> {
    /// Source of the guest's frame.
    pub(super) guest: EthernetAddress,
    pub(super) out: &'a mut Vec<u8>,
}

impl Reply<'_> {
    /// Starts a frame from the gateway to `to`, and returns its payload of `len` zeros.
    pub(super) fn ethernet(
        &mut self,
        to: EthernetAddress,
        ethertype: EthernetProtocol,
        len: usize,
    ) -> &mut [u8] {
        self.out.clear();
        self.out.resize(ETHERNET_HEADER_LEN + len, 0);
        let repr = EthernetRepr { src_addr: EthernetAddress(GATEWAY_MAC), dst_addr: to, ethertype };
        repr.emit(&mut EthernetFrame::new_unchecked(&mut self.out[..]));
        &mut self.out[ETHERNET_HEADER_LEN..]
    }

    /// Starts an IPv4 packet to hardware address `to`, and returns its payload.
    pub(super) fn ipv4(&mut self, to: EthernetAddress, repr: &Ipv4Repr) -> &mut [u8] {
        let packet = self.ethernet(to, EthernetProtocol::Ipv4, IPV4_HEADER_LEN + repr.payload_len);
        repr.emit(&mut Ipv4Packet::new_unchecked(&mut *packet), &ChecksumCapabilities::default());
        &mut packet[IPV4_HEADER_LEN..]
    }

    /// Starts an IPv6 packet to the guest, and returns its payload. Multicast packets are sent to the guest's
    /// hardware address too, as RFC 6085 permits.
    pub(super) fn ipv6(&mut self, repr: &Ipv6Repr) -> &mut [u8] {
        let packet = self.ethernet(self.guest, EthernetProtocol::Ipv6, IPV6_HEADER_LEN + repr.payload_len);
        repr.emit(&mut Ipv6Packet::new_unchecked(&mut *packet));
        &mut packet[IPV6_HEADER_LEN..]
    }
}
