//! Partial checksums: what the guest completes must be correct.

mod guest;

use std::io::Write;
use std::net::{TcpListener, UdpSocket};

use guest::{GATEWAY, GATEWAY_V6, Guest, settings};
use smoltcp::socket::tcp::State;
use vmm_usernet::{Frame, PartialChecksum};

/// Does what the guest's driver does: sums everything from `start` on, with the pseudo header's sum in the
/// field.
fn complete(frame: &mut [u8], partial: PartialChecksum) {
    let start = usize::from(partial.start);
    let field = start + usize::from(partial.offset);
    let mut sum: u32 = frame[start..]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .fold(0, |sum, word| {
            let sum = sum + word;
            (sum & 0xffff) + (sum >> 16)
        });
    sum = (sum & 0xffff) + (sum >> 16);
    frame[field..field + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Like [`Guest::until`], but completes the checksum of each frame; the guest's stack drops wrong ones.
/// Returns the positions of the checksums.
#[track_caller]
fn until(guest: &mut Guest, mut done: impl FnMut(&mut Guest) -> bool) -> Vec<PartialChecksum> {
    let mut seen = Vec::new();
    let mut buffer = vec![0; usize::from(guest::MTU) + 14];
    guest.net.set_partial_checksums(true);
    for _ in 0..1000 {
        guest.send_only();
        while let Some(Frame { len, checksum }) = guest.net.receive(&mut buffer) {
            if let Some(partial) = checksum {
                complete(&mut buffer[..len], partial);
                seen.push(partial);
            }
            guest.card.received.push_back(buffer[..len].to_vec());
        }
        guest.send_only();
        if done(guest) {
            return seen;
        }
        guest.wait();
    }
    panic!("it hasn't happened");
}

#[test]
fn checksum_of_tcp_completed_by_guest_is_right() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut guest = Guest::new(settings(&["host:*"]));
    let socket = guest.connect(format!("{GATEWAY}:{}", listener.local_addr().unwrap().port()));
    let seen = until(&mut guest, |guest| guest.tcp(socket).state() == State::Established);
    // After 14 bytes of Ethernet and 20 of IPv4; RFC 9293 §3.1 has the checksum at 16.
    assert_eq!(seen[0], PartialChecksum { start: 34, offset: 16 });
    // An odd length: the last byte is padded for the sum.
    listener.accept().unwrap().0.write_all(b"odd").unwrap();
    until(&mut guest, |guest| guest.tcp(socket).recv_queue() == 3);
}

#[test]
fn checksum_of_tcp_over_ipv6_completed_by_guest_is_right() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let mut guest = Guest::new(settings(&["host:*"]));
    let socket = guest.connect(format!("[{GATEWAY_V6}]:{}", listener.local_addr().unwrap().port()));
    let seen = until(&mut guest, |guest| guest.tcp(socket).state() == State::Established);
    assert_eq!(seen[0], PartialChecksum { start: 54, offset: 16 });
}

#[test]
fn checksum_of_udp_completed_by_guest_is_right() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut guest = Guest::new(settings(&["host:*"]));
    let socket = guest.udp_socket(5000);
    let to: std::net::SocketAddr =
        format!("{GATEWAY}:{}", server.local_addr().unwrap().port()).parse().unwrap();
    guest.udp(socket).send_slice(b"hello", to).unwrap();
    until(&mut guest, |guest| guest.udp(socket).send_queue() == 0);
    let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
    server.send_to(b"odd", from).unwrap();
    let seen = until(&mut guest, |guest| guest.udp(socket).can_recv());
    assert_eq!(seen, [PartialChecksum { start: 34, offset: 6 }]);
}
