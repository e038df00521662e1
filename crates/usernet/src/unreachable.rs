//! ICMP "destination unreachable", so that who asks for what can't be had learns it at once.

use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IPV4_MIN_MTU, IPV6_MIN_MTU, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable,
    Icmpv6Packet, Icmpv6ParamProblem, Icmpv6Repr, IpProtocol, Ipv4Repr, Ipv6Repr,
};

use crate::addresses::{GATEWAY_V4, GATEWAY_V6};
use crate::link::{self, Link};
use crate::packet::{HOP_LIMIT, Packet, header_len, write_header};

/// Why a packet doesn't arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// No rule permits it.
    Prohibited,
    /// There is nobody at that address, or no way there.
    NoHost,
    /// Nobody listens there.
    NoPort,
    /// We don't carry that protocol.
    NoProtocol,
}

impl Why {
    /// What an error of a host's socket means to the guest.
    pub(crate) fn of(error: Errno) -> Self {
        match error {
            Errno::CONNREFUSED => Why::NoPort,
            Errno::ACCESS | Errno::PERM => Why::Prohibited,
            _ => Why::NoHost,
        }
    }

    /// RFC 792 and RFC 1812 §5.2.7.1.
    fn code_v4(self) -> Icmpv4DstUnreachable {
        match self {
            Why::Prohibited => Icmpv4DstUnreachable::CommProhibited,
            Why::NoHost => Icmpv4DstUnreachable::HostUnreachable,
            Why::NoPort => Icmpv4DstUnreachable::PortUnreachable,
            Why::NoProtocol => Icmpv4DstUnreachable::ProtoUnreachable,
        }
    }
}

/// Writes the frame that tells the sender of `packet` why it won't arrive to `out`.
///
/// The caller never asks for it on behalf of an ICMP error or of a packet to a group (RFC 1122 §3.2.2).
pub(crate) fn write(out: &mut Vec<u8>, link: &Link, packet: &Packet<'_>, why: Why) {
    out.clear();
    match (packet.from, packet.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = Ipv4Repr {
                src_addr: from,
                dst_addr: to,
                next_header: packet.protocol,
                payload_len: packet.payload.len(),
                hop_limit: HOP_LIMIT,
            };
            let data = shortened(packet.payload, IPV4_MIN_MTU - 2 * header.buffer_len() - 8);
            let message = Icmpv4Repr::DstUnreachable { reason: why.code_v4(), header, data };
            // A port is refused by the host that has it; everything else the gateway says.
            let sender = if why == Why::NoPort { packet.to } else { GATEWAY_V4.into() };
            let at = begin(out, sender, packet.from, IpProtocol::Icmp, message.buffer_len());
            message.emit(&mut Icmpv4Packet::new_unchecked(&mut out[at..]), &ChecksumCapabilities::default());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Repr {
                src_addr: from,
                dst_addr: to,
                next_header: packet.protocol,
                payload_len: packet.payload.len(),
                hop_limit: HOP_LIMIT,
            };
            let data = shortened(packet.payload, IPV6_MIN_MTU - 2 * header.buffer_len() - 8);
            // RFC 4443 §3.1 and §3.4.
            let reason = match why {
                Why::Prohibited => Icmpv6DstUnreachable::AdminProhibit,
                Why::NoPort => Icmpv6DstUnreachable::PortUnreachable,
                Why::NoHost | Why::NoProtocol => Icmpv6DstUnreachable::AddrUnreachable,
            };
            let message = match why {
                // The pointer is to the field "next header", the seventh byte of the IPv6 header.
                Why::NoProtocol => Icmpv6Repr::ParamProblem {
                    reason: Icmpv6ParamProblem::UnrecognizedNxtHdr,
                    pointer: 6,
                    header,
                    data,
                },
                _ => Icmpv6Repr::DstUnreachable { reason, header, data },
            };
            let sender = if why == Why::NoPort { to } else { GATEWAY_V6 };
            let at = begin(out, sender.into(), packet.from, IpProtocol::Icmpv6, message.buffer_len());
            let mut icmp = Icmpv6Packet::new_unchecked(&mut out[at..]);
            message.emit(&sender, &from, &mut icmp, &ChecksumCapabilities::default());
        }
        _ => return,
    }
    link.seal(out);
}

/// Writes that frame for a packet that is gone: `first` are the eight bytes that followed its IP header, which is all
/// that a sender needs to find the socket (RFC 792).
pub(crate) fn write_for(
    out: &mut Vec<u8>,
    link: &Link,
    (from, to): (SocketAddr, SocketAddr),
    protocol: IpProtocol,
    first: [u8; 8],
    why: Why,
) {
    let mut whole = [0; 48];
    let at = write_header(&mut whole, from.ip(), to.ip(), protocol, first.len());
    whole[at..at + first.len()].copy_from_slice(&first);
    let whole = &whole[..at + first.len()];
    let packet = Packet { from: from.ip(), to: to.ip(), protocol, whole, payload: &whole[at..] };
    write(out, link, &packet, why);
}

/// The first eight bytes of a datagram without data.
pub(crate) fn datagram_start(from: SocketAddr, to: SocketAddr) -> [u8; 8] {
    let [a, b] = from.port().to_be_bytes();
    let [c, d] = to.port().to_be_bytes();
    [a, b, c, d, 0, 8, 0, 0]
}

fn begin(out: &mut Vec<u8>, from: IpAddr, to: IpAddr, protocol: IpProtocol, len: usize) -> usize {
    out.resize(link::HEADER_LEN + header_len(to) + len, 0);
    write_header(&mut out[link::HEADER_LEN..], from, to, protocol, len);
    link::HEADER_LEN + header_len(to)
}

fn shortened(bytes: &[u8], len: usize) -> &[u8] {
    &bytes[..bytes.len().min(len)]
}
