//! Malformed frames of all kinds, and floods of requests: no panic, no unbounded memory, and the link still
//! works.

mod guest;

use std::net::{TcpListener, UdpSocket};

use guest::{GATEWAY, GATEWAY_MAC, GUEST_MAC, Guest, settings};
use proptest::prelude::*;
use smoltcp::wire::Ipv4Packet;
use vmm_usernet::Allow;

/// A guest on a network that permits only the host's loopback.
fn guest() -> Guest {
    let mut guest = Guest::new(settings(&["host:1-10", "tcp:127.0.0.0/8:1-10", "udp:127.0.0.0/8:1-10"]));
    guest.turn();
    guest
}

fn ethernet(kind: u16, packet: &[u8]) -> Vec<u8> {
    [&GATEWAY_MAC[..], &GUEST_MAC, &kind.to_be_bytes(), packet].concat()
}

/// An IPv4 packet with a valid header and any payload.
fn v4(protocol: u8, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15];
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet.extend_from_slice(&to);
    Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
    packet.extend_from_slice(payload);
    ethernet(0x0800, &packet)
}

fn v6(next: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    let network = [0xfd, 0x76, 0x6d, 0x6d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    packet.extend_from_slice(&network);
    packet.push(0x15);
    packet.extend_from_slice(&network);
    packet.push(to);
    packet.extend_from_slice(payload);
    ethernet(0x86dd, &packet)
}

fn feed(guest: &mut Guest, frames: &[Vec<u8>]) {
    for frame in frames {
        guest.net.send(frame);
        while guest.receive().is_some() {}
    }
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(1), Just(6), Just(17), Just(58), Just(44), any::<u8>()]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..80)
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let to = prop_oneof![Just([10, 0, 2, 2]), Just([10, 0, 2, 3]), Just([127, 0, 0, 1]), any::<[u8; 4]>()];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        (any::<u16>(), payload()).prop_map(|(kind, payload)| ethernet(kind, &payload)),
        (protocol(), to, payload()).prop_map(|(protocol, to, payload)| v4(protocol, to, &payload)),
        (protocol(), any::<u8>(), payload()).prop_map(|(protocol, to, payload)| v6(protocol, to, &payload)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_of_any_bytes_never_panic(frames in prop::collection::vec(frame(), 0..20)) {
        feed(&mut guest(), &frames);
    }

    /// A packet cut off anywhere, so that its lengths are wrong.
    #[test]
    fn frames_cut_short_never_panic(frame in frame(), cut in 0_usize..100) {
        let cut = cut.min(frame.len());
        feed(&mut guest(), &[frame[..cut].to_vec()]);
    }

    /// Segments of a connection to a listener, with any numbers, flags and options: these reach more code
    /// than other packets.
    #[test]
    fn segments_of_any_kind_never_panic(segments in prop::collection::vec(segment(), 1..40)) {
        let (_listener, mut guest, port, ours) = begun();
        for (seq, ack, flags, window, options, len) in segments {
            let (seq, ack) = (1001_u32.wrapping_add_signed(seq), ours.wrapping_add_signed(ack));
            let payload = vec![7; len];
            guest.net.send(&v4(6, [10, 0, 2, 2], &tcp(port, [seq, ack], flags, window, &options, &payload)));
            while guest.receive().is_some() {}
        }
    }
}

/// A FIN beyond the window, then a sequence number half the number space away. smoltcp 0.14 considers that
/// inside a window whose end precedes its start, and panics.
#[test]
fn segment_half_of_all_numbers_away_never_panics() {
    let (listener, mut guest, port, ours) = begun();
    let mut next = 1001_u32;
    let mut send = |guest: &mut Guest, len: usize, flags: u8| {
        guest.net.send(&v4(6, [10, 0, 2, 2], &tcp(port, [next, ours + 1], flags, 1000, &[], &vec![7; len])));
        next += len as u32;
    };
    // The end of the handshake and one byte, which is acknowledged, with a window of 256 KiB.
    send(&mut guest, 1, 0x10);
    while guest.receive().is_some() {}
    // 2 KiB less than that, then 3 KiB with FIN, all before anything is acknowledged.
    (0..4).for_each(|_| send(&mut guest, 65_024, 0x10));
    send(&mut guest, 3 << 10, 0x11);
    let window_end = 1002 + (256 << 10);
    let far = window_end + 1 + 0x7fff_ffff;
    guest.net.send(&v4(6, [10, 0, 2, 2], &tcp(port, [far, ours + 1], 0x10, 1000, &[], &[])));
    while guest.receive().is_some() {}
    drop(listener);
}

/// A connection to a listener that accepts nothing, one segment before the end of its handshake; also returns
/// the listener's port and our initial sequence number.
fn begun() -> (TcpListener, Guest, u16, u32) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = Guest::new(settings(&["host:*"]));
    guest.net.send(&v4(
        6,
        [10, 0, 2, 2],
        &tcp(port, [1000, 0], 0x02, 65535, &[2, 4, 5, 0xb4, 3, 3, 7, 0], &[]),
    ));
    let greeting = guest.next_frame();
    let ours = u32::from_be_bytes(greeting[38..42].try_into().unwrap());
    (listener, guest, port, ours)
}

type Segment = (i32, i32, u8, u16, Vec<u8>, usize);

/// Sequence numbers near the expected ones, or any; lengths up to a whole packet.
fn segment() -> impl Strategy<Value = Segment> {
    let near = || prop_oneof![4 => -2..3_i32, 2 => 0..400_000_i32, 1 => any::<i32>()];
    let flags = prop_oneof![4 => Just(0x10_u8), 1 => Just(0x11), 1 => Just(0x12), 1 => any::<u8>()];
    let options = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any::<u8>(), 12..=12)];
    let window = prop_oneof![Just(0_u16), Just(1), Just(u16::MAX), any::<u16>()];
    let len = prop_oneof![Just(0_usize), Just(1), Just(65_000), 0..65_000_usize];
    (near(), near(), flags, window, options, len)
}

fn tcp(port: u16, [seq, ack]: [u32; 2], flags: u8, window: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40];
    segment.extend_from_slice(&port.to_be_bytes());
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&ack.to_be_bytes());
    // Header length in 4-byte words, in the upper four bits.
    segment.push((((20 + options.len()) / 4) << 4) as u8);
    segment.push(flags);
    segment.extend_from_slice(&window.to_be_bytes());
    segment.extend_from_slice(&[0; 4]);
    segment.extend_from_slice(options);
    segment.extend_from_slice(payload);
    segment
}

/// A frame that would be answered, cut to every shorter length.
#[test]
fn request_cut_at_any_length_never_panics() {
    let mut guest = guest();
    let whole = [
        v4(6, [10, 0, 2, 2], &tcp(80, [1, 0], 2, 1000, &[2, 4, 5, 0xb4], b"data")),
        v4(17, [10, 0, 2, 3], &[0, 53, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4]),
        v4(1, [192, 0, 2, 1], &[8, 0, 0, 0, 1, 2, 3, 4, 5, 6]),
        v6(58, 9, &[128, 0, 0, 0, 1, 2, 3, 4]),
    ];
    for frame in whole {
        for len in 0..=frame.len() {
            feed(&mut guest, &[frame[..len].to_vec()]);
        }
    }
}

/// A hundred thousand requests, each with a reply that isn't taken.
#[test]
fn requests_without_end_are_answered_when_somebody_listens() {
    let mut guest = guest();
    for number in 0..100_000_u32 {
        let to = (0xc000_0200 | number & 0xff).to_be_bytes();
        guest.net.send(&v4(6, to, &tcp(80, [number, 0], 2, 1000, &[], &[])));
    }
    let waiting = std::iter::from_fn(|| guest.receive()).count();
    assert_eq!(waiting, 64);
    assert_eq!(guest.net.refused(), 100_000);
    guest.net.send(&v4(6, [192, 0, 2, 1], &tcp(80, [1, 0], 2, 1000, &[], &[])));
    assert!(guest.receive().is_some());
}

/// Each opens a host socket; the oldest are closed.
#[test]
fn udp_flows_without_end_are_bounded() {
    let mut settings = settings(&["host:*"]);
    settings.flows = 16;
    let mut guest = Guest::new(settings);
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let [high, low] = server.local_addr().unwrap().port().to_be_bytes();
    let before = open_files();
    for port in 1..=2000_u16 {
        let [from_high, from_low] = port.to_be_bytes();
        guest.net.send(&v4(17, [10, 0, 2, 2], &[from_high, from_low, high, low, 0, 9, 0, 0, 1]));
    }
    // Other tests in this process open some as well, but far fewer than two thousand.
    assert!(open_files() < before + 1000, "{before} before, {} now", open_files());
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The same for connections, which are refused when the table is full, and succeed again when there is room.
#[test]
fn tcp_flows_without_end_are_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut settings = settings(&[]);
    settings.allow = Allow::all();
    settings.flows = 16;
    let mut guest = Guest::new(settings);
    for round in 0..3 {
        for number in 0..200_u16 {
            let mut syn = tcp(port, [1, 0], 2, 1000, &[], &[]);
            syn[..2].copy_from_slice(&(1000 + number).to_be_bytes());
            guest.net.send(&v4(6, [10, 0, 2, 2], &syn));
            while guest.receive().is_some() {}
        }
        for number in 0..200_u16 {
            // A reset with the expected sequence number.
            let mut reset = tcp(port, [2, 0], 4, 1000, &[], &[]);
            reset[..2].copy_from_slice(&(1000 + number).to_be_bytes());
            guest.net.send(&v4(6, [10, 0, 2, 2], &reset));
        }
        while guest.receive().is_some() {}
        let socket = guest.connected(format!("{GATEWAY}:{port}"));
        guest.tcp(socket).abort();
        guest.turn();
        assert!(round < 3);
    }
}
