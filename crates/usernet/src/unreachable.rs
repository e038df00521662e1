//! ICMP "destination unreachable" messages, so that the guest learns of errors at once.

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

/// Reason a packet isn't delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No rule permits it.
    Prohibited,
    /// No host has the address, or there is no route to it.
    NoHost,
    /// Nothing listens at the port.
    NoPort,
    /// The protocol isn't supported.
    NoProtocol,
}

impl Reason {
    /// Maps an error of a host socket.
    pub(crate) fn of(error: Errno) -> Self {
        match error {
            Errno::CONNREFUSED => Reason::NoPort,
            Errno::ACCESS | Errno::PERM => Reason::Prohibited,
            _ => Reason::NoHost,
        }
    }

    /// ICMP codes of RFC 792 and RFC 1812 §5.2.7.1.
    fn code_v4(self) -> Icmpv4DstUnreachable {
        match self {
            Reason::Prohibited => Icmpv4DstUnreachable::CommProhibited,
            Reason::NoHost => Icmpv4DstUnreachable::HostUnreachable,
            Reason::NoPort => Icmpv4DstUnreachable::PortUnreachable,
            Reason::NoProtocol => Icmpv4DstUnreachable::ProtoUnreachable,
        }
    }
}

/// Writes the frame that tells the sender of `packet` why it isn't delivered to `out`.
///
/// Must not be called for an ICMP error or a packet to a group (RFC 1122 §3.2.2).
pub(crate) fn write(out: &mut Vec<u8>, link: &Link, packet: &Packet<'_>, why: Reason) {
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
            // A closed port is reported by the host that has it, everything else by the gateway.
            let sender = if why == Reason::NoPort { packet.to } else { GATEWAY_V4.into() };
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
            // Codes of RFC 4443 §3.1 and §3.4.
            let reason = match why {
                Reason::Prohibited => Icmpv6DstUnreachable::AdminProhibit,
                Reason::NoPort => Icmpv6DstUnreachable::PortUnreachable,
                Reason::NoHost | Reason::NoProtocol => Icmpv6DstUnreachable::AddrUnreachable,
            };
            let message = match why {
                // Points to the field "next header", at offset 6 of the IPv6 header.
                Reason::NoProtocol => Icmpv6Repr::ParamProblem {
                    reason: Icmpv6ParamProblem::UnrecognizedNxtHdr,
                    pointer: 6,
                    header,
                    data,
                },
                _ => Icmpv6Repr::DstUnreachable { reason, header, data },
            };
            let sender = if why == Reason::NoPort { to } else { GATEWAY_V6 };
            let at = begin(out, sender.into(), packet.from, IpProtocol::Icmpv6, message.buffer_len());
            let mut icmp = Icmpv6Packet::new_unchecked(&mut out[at..]);
            message.emit(&sender, &from, &mut icmp, &ChecksumCapabilities::default());
        }
        _ => return,
    }
    link.seal(out);
}

/// Writes that frame for a packet that is no longer available: `first` are the eight bytes after its IP
/// header, which suffice for the sender to find the socket (RFC 792).
pub(crate) fn write_for(
    out: &mut Vec<u8>,
    link: &Link,
    (from, to): (SocketAddr, SocketAddr),
    protocol: IpProtocol,
    first: [u8; 8],
    why: Reason,
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
