//! Sequence state of a connection, read from its segments: enough to recreate a socket for it.

use std::net::SocketAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, TcpControl, TcpOption, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr};

use crate::packet::{LONGEST_BARE_SEGMENT, header_len, write_header};
use crate::tcp::open_tcp::OpenTcp;
use crate::tcp::stack::RING_LEN;

/// Segments farther than this from the expected number are outside any window, which has 256 KiB.
const FAR: u32 = 1 << 30;

/// Sequence numbers and options of a connection, as the guest sees them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SequenceState {
    /// Options of the guest's SYN.
    mss: Option<u16>,
    window_scale: Option<u8>,
    sack: bool,
    /// Next byte expected from the guest: our last acknowledgement.
    wanted: u32,
    /// Next byte to send to the guest.
    next: u32,
    /// Last window announced by the guest, in bytes.
    window: u32,
    /// Our sequence numbers minus those of the current socket.
    shift: u32,
    /// Limit of the guest's data while the socket's last segment was a SYN.
    edge: Option<u32>,
}

impl SequenceState {
    /// Notes the contents of the guest's SYN or SYN-ACK.
    pub(crate) fn note_syn(&mut self, syn: &TcpPacket<&[u8]>) {
        self.wanted = seq(syn.seq_number()).wrapping_add(1);
        self.window = syn.window_len().into();
        self.edge = Some(self.wanted.wrapping_add(RING_LEN as u32));
        let mut options = syn.options();
        // A malformed option ends the list; the socket checks the segment itself.
        while let Ok((rest, option)) = TcpOption::parse(options) {
            match option {
                TcpOption::MaxSegmentSize(mss) => self.mss = Some(mss),
                // RFC 7323 §2.3.
                TcpOption::WindowScale(scale) => self.window_scale = Some(scale.min(14)),
                TcpOption::SackPermitted => self.sack = true,
                TcpOption::EndOfList => break,
                _ => {}
            }
            if rest.is_empty() {
                break;
            }
            options = rest;
        }
    }

    /// Whether the socket may see this segment from the guest. A SYN must have been noted before.
    ///
    /// The order of two sequence numbers that are half the number space apart is undefined (RFC 1982 §3.2).
    /// smoltcp panics on such a segment after a FIN beyond its window, which makes its window negative.
    ///
    /// A SYN's window isn't scaled (RFC 7323 §2.2), but smoltcp treats it as scaled until the next segment.
    /// It would then accept more than its buffer holds, and panic.
    pub(crate) fn admits(&self, segment: &TcpPacket<&[u8]>) -> bool {
        let start = seq(segment.seq_number());
        if (start.wrapping_sub(self.wanted) as i32).unsigned_abs() > FAR {
            return false;
        }
        let Some(edge) = self.edge else { return true };
        let end = start.wrapping_add(segment.payload().len() as u32);
        edge.wrapping_sub(end) as i32 >= 0
    }

    /// Notes the window in a segment from the guest.
    pub(crate) fn note_received(&mut self, segment: &TcpPacket<&[u8]>) {
        if segment.ack() && !segment.syn() && !segment.rst() {
            self.window = u32::from(segment.window_len()) << self.window_scale.unwrap_or(0);
        }
    }

    /// Converts a segment from the socket to the guest's sequence numbers, without the checksum, and notes
    /// its contents.
    pub(crate) fn send(&mut self, segment: &mut [u8]) {
        let mut tcp = TcpPacket::new_unchecked(segment);
        let number = seq(tcp.seq_number()).wrapping_add(self.shift);
        tcp.set_seq_number(TcpSeqNumber(number as i32));
        if tcp.rst() {
            return;
        }
        let len = tcp.payload_mut().len() as u32 + u32::from(tcp.syn()) + u32::from(tcp.fin());
        let end = number.wrapping_add(len);
        if tcp.syn() {
            self.next = end;
            // For a connection into the guest, the limit isn't known yet: `note_syn` sets it.
            if tcp.ack() {
                self.edge = Some(self.wanted.wrapping_add(RING_LEN as u32));
            }
        } else {
            self.edge = None;
            // A retransmitted segment ends earlier.
            if end.wrapping_sub(self.next) as i32 > 0 {
                self.next = end;
            }
        }
        if tcp.ack() {
            self.wanted = seq(tcp.ack_number());
        }
    }

    /// A copy of the guest's packet with the socket's sequence numbers; `None` if they are the same.
    pub(crate) fn received<'a>(
        &self,
        packet: &[u8],
        header_len: usize,
        copy: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        if self.shift == 0 {
            return None;
        }
        copy.clear();
        copy.extend_from_slice(packet);
        let mut tcp = TcpPacket::new_unchecked(&mut copy[header_len..]);
        let number = seq(tcp.ack_number()).wrapping_sub(self.shift);
        tcp.set_ack_number(TcpSeqNumber(number as i32));
        Some(copy)
    }

    /// The guest's SYN, without data, as if the connection started here.
    pub(crate) fn syn(&self, guest: SocketAddr, remote: SocketAddr) -> EmptySegment {
        let mut segment = segment(guest, remote);
        segment.control = TcpControl::Syn;
        segment.seq_number = TcpSeqNumber(self.wanted.wrapping_sub(1) as i32);
        segment.window_len = u16::try_from(self.window).unwrap_or(u16::MAX);
        segment.max_seg_size = self.mss;
        segment.window_scale = self.window_scale;
        segment.sack_permitted = self.sack;
        EmptySegment::new(guest, remote, &segment)
    }

    /// The guest's answer to `greeting`, the socket's SYN-ACK to the SYN above. From then on the socket's
    /// numbers are shifted to match ours.
    pub(crate) fn resume(
        &mut self,
        guest: SocketAddr,
        remote: SocketAddr,
        greeting: &TcpPacket<&[u8]>,
    ) -> EmptySegment {
        let first = seq(greeting.seq_number()).wrapping_add(1);
        self.shift = self.next.wrapping_sub(first);
        // The socket has sent only a SYN, and its buffer is empty.
        self.edge = Some(self.wanted.wrapping_add(RING_LEN as u32));
        let mut segment = segment(guest, remote);
        segment.seq_number = TcpSeqNumber(self.wanted as i32);
        segment.ack_number = Some(TcpSeqNumber(first as i32));
        segment.window_len = u16::try_from(self.window >> self.window_scale.unwrap_or(0)).unwrap_or(u16::MAX);
        EmptySegment::new(guest, remote, &segment)
    }

    /// Sequence numbers of the next byte to the guest and of the next one from it.
    pub(crate) fn ends(&self) -> (u32, u32) {
        (self.next, self.wanted)
    }

    /// The first eight bytes of the guest's SYN, for an ICMP message.
    pub(crate) fn syn_start(&self, guest: SocketAddr, remote: SocketAddr) -> [u8; 8] {
        let [a, b] = guest.port().to_be_bytes();
        let [c, d] = remote.port().to_be_bytes();
        let [e, f, g, h] = self.wanted.wrapping_sub(1).to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

/// An IP packet with a TCP segment without data, without the TCP checksum.
pub(crate) struct EmptySegment {
    bytes: [u8; LONGEST_BARE_SEGMENT],
    len: usize,
}

impl EmptySegment {
    fn new(from: SocketAddr, to: SocketAddr, segment: &TcpRepr<'_>) -> Self {
        let mut bytes = [0; LONGEST_BARE_SEGMENT];
        let at = write_header(&mut bytes, from.ip(), to.ip(), IpProtocol::Tcp, segment.buffer_len());
        let len = at + segment.buffer_len();
        let mut packet = TcpPacket::new_unchecked(&mut bytes[at..len]);
        segment.emit(&mut packet, &from.ip().into(), &to.ip().into(), &ChecksumCapabilities::ignored());
        Self { bytes, len }
    }

    pub(crate) fn packet(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The segment in a packet that the socket wrote to `to`.
pub(crate) fn segment_of(packet: &[u8], to: SocketAddr) -> TcpPacket<&[u8]> {
    TcpPacket::new_unchecked(&packet[header_len(to.ip())..])
}

/// A reset of a connection, for the guest.
pub(crate) fn reset_of(open: &OpenTcp) -> EmptySegment {
    let mut segment = segment(open.remote, open.guest);
    segment.control = TcpControl::Rst;
    segment.seq_number = TcpSeqNumber(open.next as i32);
    segment.ack_number = Some(TcpSeqNumber(open.wanted as i32));
    EmptySegment::new(open.remote, open.guest, &segment)
}

fn segment(from: SocketAddr, to: SocketAddr) -> TcpRepr<'static> {
    TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control: TcpControl::None,
        seq_number: TcpSeqNumber(0),
        ack_number: None,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None::<TcpTimestampRepr>,
        payload: &[],
    }
}

fn seq(number: TcpSeqNumber) -> u32 {
    number.0 as u32
}
