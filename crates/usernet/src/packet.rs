//! Parses IP packets from the guest and builds packets for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TCP_HEADER_LEN,
    TcpPacket, UDP_HEADER_LEN, UdpPacket, checksum,
};

use crate::link;

/// Hop limit of packets to the guest, Linux's default.
pub(crate) const HOP_LIMIT: u8 = 64;

/// A complete IP packet, not a fragment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: IpProtocol,
    /// The packet with its header, without Ethernet padding.
    pub(crate) whole: &'a [u8],
    /// What follows the IP header.
    pub(crate) payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Parses an IPv4 packet. `None` if it is malformed or a fragment.
    pub(crate) fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let packet = Ipv4Packet::new_checked(bytes).ok()?;
        let header_len = usize::from(packet.header_len());
        if packet.version() != 4 || header_len < IPV4_HEADER_LEN || !packet.verify_checksum() {
            return None;
        }
        if packet.more_frags() || packet.frag_offset() != 0 {
            return None;
        }
        let whole = bytes.get(..usize::from(packet.total_len()))?;
        Some(Self {
            from: packet.src_addr().into(),
            to: packet.dst_addr().into(),
            protocol: packet.next_header(),
            whole,
            payload: whole.get(header_len..)?,
        })
    }

    /// Parses an IPv6 packet. `None` if it is malformed. An extension header counts as the protocol, and
    /// isn't supported.
    pub(crate) fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let packet = Ipv6Packet::new_checked(bytes).ok()?;
        if packet.version() != 6 {
            return None;
        }
        let whole = bytes.get(..packet.total_len())?;
        Some(Self {
            from: packet.src_addr().into(),
            to: packet.dst_addr().into(),
            protocol: packet.next_header(),
            whole,
            payload: whole.get(IPV6_HEADER_LEN..)?,
        })
    }
}

/// Length of the IP header of a packet to `address`.
pub(crate) fn header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => IPV4_HEADER_LEN,
        IpAddr::V6(_) => IPV6_HEADER_LEN,
    }
}

/// Writes the IP header of a packet with `payload_len` bytes of `protocol` to the start of `into`; returns
/// the header's length. If the addresses differ in family, nothing is written.
pub(crate) fn write_header(
    into: &mut [u8],
    from: IpAddr,
    to: IpAddr,
    protocol: IpProtocol,
    payload_len: usize,
) -> usize {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => write_header_v4(into, from, to, protocol, payload_len),
        (IpAddr::V6(from), IpAddr::V6(to)) => write_header_v6(into, from, to, protocol, payload_len),
        _ => 0,
    }
}

fn write_header_v4(
    into: &mut [u8],
    src_addr: Ipv4Addr,
    dst_addr: Ipv4Addr,
    next_header: IpProtocol,
    payload_len: usize,
) -> usize {
    let header = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOP_LIMIT };
    header.emit(&mut Ipv4Packet::new_unchecked(into), &smoltcp::phy::ChecksumCapabilities::default());
    IPV4_HEADER_LEN
}

fn write_header_v6(
    into: &mut [u8],
    src_addr: Ipv6Addr,
    dst_addr: Ipv6Addr,
    next_header: IpProtocol,
    payload_len: usize,
) -> usize {
    let header = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOP_LIMIT };
    header.emit(&mut Ipv6Packet::new_unchecked(into));
    IPV6_HEADER_LEN
}

/// A checksum that the guest completes (virtio 1.2 §5.1.6.4, VIRTIO_NET_HDR_F_NEEDS_CSUM). The field holds
/// the sum of the pseudo header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// `csum_start`: offset in the frame of the first byte to sum.
    pub start: u16,
    /// `csum_offset`: offset of the checksum field from `start`.
    pub offset: u16,
}

/// Fills in the checksum of the TCP segment or UDP datagram after the `header_len` bytes of IP header in
/// `packet`. If the guest `may_complete` it, only the pseudo header's sum.
pub(crate) fn finish_checksum(
    packet: &mut [u8],
    from: IpAddr,
    to: IpAddr,
    protocol: IpProtocol,
    may_complete: bool,
) -> Option<PartialChecksum> {
    let header_len = header_len(to);
    let (from, to) = (from.into(), to.into());
    let transport = &mut packet[header_len..];
    let offset = match protocol {
        IpProtocol::Tcp => 16,
        _ => 6,
    };
    if may_complete {
        let sum =
            checksum::pseudo_header(&from, &to, protocol, u32::try_from(transport.len()).unwrap_or(u32::MAX));
        transport[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
        let start = u16::try_from(link::HEADER_LEN + header_len).expect("54 at most");
        return Some(PartialChecksum { start, offset: offset as u16 });
    }
    match protocol {
        IpProtocol::Tcp => TcpPacket::new_unchecked(transport).fill_checksum(&from, &to),
        _ => UdpPacket::new_unchecked(transport).fill_checksum(&from, &to),
    }
    None
}

/// Length of the headers before a datagram's data.
pub(crate) fn datagram_header_len(address: IpAddr) -> usize {
    header_len(address) + UDP_HEADER_LEN
}

/// Writes the headers of a datagram whose data is already in `packet`, after [`datagram_header_len`] bytes.
/// `packet` ends with the data.
pub(crate) fn write_datagram(
    packet: &mut [u8],
    from: SocketAddr,
    to: SocketAddr,
    may_complete: bool,
) -> Option<PartialChecksum> {
    let datagram_len = packet.len() - header_len(to.ip());
    let at = write_header(packet, from.ip(), to.ip(), IpProtocol::Udp, datagram_len);
    let mut datagram = UdpPacket::new_unchecked(&mut packet[at..]);
    datagram.set_src_port(from.port());
    datagram.set_dst_port(to.port());
    // The caller sized `packet` by the MTU, which has 16 bits.
    datagram.set_len(u16::try_from(datagram_len).unwrap_or(u16::MAX));
    datagram.set_checksum(0);
    finish_checksum(packet, from.ip(), to.ip(), IpProtocol::Udp, may_complete)
}

/// Maximum length of a TCP segment without data: IPv6 and 40 bytes of options.
pub(crate) const LONGEST_BARE_SEGMENT: usize = IPV6_HEADER_LEN + TCP_HEADER_LEN + 40;

/// Fills in the checksum of the TCP segment in `packet`, using the addresses in its IP header.
pub(crate) fn finish_whole(packet: &mut [u8]) {
    let ends = match packet[0] >> 4 {
        4 => {
            let header = Ipv4Packet::new_unchecked(&packet[..]);
            (IpAddr::V4(header.src_addr()), IpAddr::V4(header.dst_addr()))
        }
        _ => {
            let header = Ipv6Packet::new_unchecked(&packet[..]);
            (IpAddr::V6(header.src_addr()), IpAddr::V6(header.dst_addr()))
        }
    };
    finish_checksum(packet, ends.0, ends.1, IpProtocol::Tcp, false);
}
