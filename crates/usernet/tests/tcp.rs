//! TCP connections from the guest to servers on the host's loopback.

mod guest;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;

use guest::{GATEWAY, GATEWAY_V6, Guest, pattern, settings};
use smoltcp::socket::tcp::State;

/// A server for one connection, and its address as the guest sees it.
fn server<T: Send + 'static>(
    serve: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
) -> (String, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (format!("{GATEWAY}:{port}"), thread::spawn(move || serve(listener.accept().unwrap().0)))
}

fn guest() -> Guest {
    Guest::new(settings(&["host:*"]))
}

#[test]
fn tcp_connection_carries_bytes_both_ways() {
    let (address, server) = server(|mut stream| {
        let mut question = [0; 4];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(b"pong").unwrap();
        question
    });
    let mut guest = guest();
    let socket = guest.connected(address);
    guest.tcp(socket).send_slice(b"ping").unwrap();
    guest.expect(socket, b"pong");
    assert_eq!(&server.join().unwrap(), b"ping");
}

#[test]
fn tcp_connection_over_ipv6_carries_bytes() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || listener.accept().unwrap().0.write_all(b"six").unwrap());
    let mut guest = guest();
    let socket = guest.connected(format!("[{GATEWAY_V6}]:{port}"));
    guest.expect(socket, b"six");
    server.join().unwrap();
}

#[test]
fn tcp_mebibyte_to_host_arrives_whole() {
    let (address, server) = server(|mut stream| {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    let mut guest = guest();
    let socket = guest.connected(address);
    let data = pattern(1 << 20);
    let mut rest = &data[..];
    guest.until(|guest| {
        let sent = guest.tcp(socket).send_slice(rest).unwrap();
        rest = &rest[sent..];
        rest.is_empty().then_some(())
    });
    guest.tcp(socket).close();
    guest.until(|guest| (guest.tcp(socket).state() == State::TimeWait).then_some(()));
    assert!(server.join().unwrap() == data);
}

#[test]
fn tcp_mebibyte_to_guest_arrives_whole() {
    let data = pattern(1 << 20);
    let sent = data.clone();
    let (address, server) = server(move |mut stream| stream.write_all(&sent).unwrap());
    let mut guest = guest();
    let socket = guest.connected(address);
    guest.expect(socket, &data);
    server.join().unwrap();
}

#[test]
fn tcp_guest_ends_first_still_hears_host() {
    let (address, server) = server(|mut stream| {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        // Only now, after the guest's end.
        stream.write_all(b"answer").unwrap();
        got
    });
    let mut guest = guest();
    let socket = guest.connected(address);
    guest.tcp(socket).send_slice(b"question").unwrap();
    guest.tcp(socket).close();
    guest.expect(socket, b"answer");
    assert_eq!(server.join().unwrap(), b"question");
}

#[test]
fn tcp_host_ends_first_still_hears_guest() {
    let (address, server) = server(|mut stream| {
        stream.write_all(b"first").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    let mut guest = guest();
    let socket = guest.connected(address);
    guest.expect(socket, b"first");
    guest.until(|guest| (guest.tcp(socket).state() == State::CloseWait).then_some(()));
    guest.tcp(socket).send_slice(b"second").unwrap();
    guest.tcp(socket).close();
    guest.until(|guest| (guest.tcp(socket).state() == State::Closed).then_some(()));
    assert_eq!(server.join().unwrap(), b"second");
}

/// A port of the host's loopback without a listener.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn tcp_host_refuses_resets_guest() {
    let mut guest = guest();
    let socket = guest.connect(format!("{GATEWAY}:{}", closed_port()));
    guest.until(|guest| (guest.tcp(socket).state() == State::Closed).then_some(()));
}

/// The reply is available immediately, before any wait.
#[test]
fn tcp_rules_refuse_resets_guest_at_once() {
    let mut guest = Guest::new(settings(&["tcp:192.0.2.1:443"]));
    let allowed_once = guest.connect("192.0.2.1:80");
    // The first turns are the guest's ARP request for the gateway.
    guest.frame(|frame| (frame[12..14] == [8, 6]).then_some(()));
    guest.turn();
    guest.turn();
    assert_eq!(guest.tcp(allowed_once).state(), State::Closed);
    assert_eq!(guest.net.refused(), 1);
    assert_eq!(
        guest.net.take_notice().as_deref(),
        Some(r#"refused tcp 192.0.2.1:80: no rule of "allow" permits it"#)
    );
    assert_eq!(guest.net.take_notice(), None);
}

#[test]
fn tcp_to_nobody_on_the_link_is_unreachable() {
    let mut guest = guest();
    guest.connect("10.0.2.77:80");
    // The guest's stack would ask for that address and get no reply, so the frame is sent by hand.
    let frame = by_hand::syn([10, 0, 2, 77], 80);
    guest.net.send(&frame);
    // Destination unreachable: host (RFC 792).
    assert_eq!(guest.receive().as_deref().and_then(Guest::icmp), Some((3, 1)));
}

#[test]
fn tcp_host_resets_guest_is_reset() {
    let (address, server) = server(|mut stream| {
        stream.read_exact(&mut [0; 1]).unwrap();
        // Closing with unread data is a reset.
        stream.read_exact(&mut [0; 1]).unwrap();
    });
    let mut guest = guest();
    let socket = guest.connected(address);
    guest.tcp(socket).send_slice(&[0; 100]).unwrap();
    guest.until(|guest| (guest.tcp(socket).state() == State::Closed).then_some(()));
    server.join().unwrap();
}

#[test]
fn tcp_guest_resets_host_is_reset() {
    let (address, server) = server(|mut stream| stream.read(&mut [0; 1]));
    let mut guest = guest();
    let socket = guest.connected(address);
    guest.tcp(socket).abort();
    guest.turn();
    let error = server.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// The host ends the connection, then resets it: no read would report the reset.
#[test]
fn tcp_host_resets_after_its_end_guest_is_reset() {
    let (address, server) = server(|stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    });
    let mut guest = guest();
    let socket = guest.connected(address);
    guest.until(|guest| (guest.tcp(socket).state() == State::CloseWait).then_some(()));
    let stream = server.join().unwrap();
    guest.tcp(socket).send_slice(b"unread").unwrap();
    guest.until(|guest| (guest.tcp(socket).send_queue() == 0).then_some(()));
    drop(stream);
    guest.until(|guest| (guest.tcp(socket).state() == State::Closed).then_some(()));
}

#[test]
fn tcp_segment_of_no_connection_is_reset() {
    let mut guest = guest();
    guest.net.send(&by_hand::ack([10, 0, 2, 2], 80));
    let answer = guest.receive().unwrap();
    // RST alone: the sequence number is what was acknowledged (RFC 9293 §3.10.7.1).
    assert_eq!(answer[14 + 20 + 13] & 0x3f, 0x04);
}

#[test]
fn tcp_table_full_resets_guest() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("{GATEWAY}:{}", listener.local_addr().unwrap().port());
    let mut two = settings(&["host:*"]);
    two.flows = 2;
    let mut guest = Guest::new(two);
    let first = guest.connected(&address);
    let second = guest.connected(&address);
    let third = guest.connect(&address);
    guest.until(|guest| (guest.tcp(third).state() == State::Closed).then_some(()));
    // There is room again after one ends.
    guest.tcp(first).abort();
    guest.turn();
    guest.connected(&address);
    assert!(guest.tcp(second).may_send());
}

#[test]
fn tcp_thousand_connections_carry_bytes() {
    const CONNECTIONS: usize = 1000;
    guest::allow_descriptors(3 * CONNECTIONS as u64);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("{GATEWAY}:{}", listener.local_addr().unwrap().port());
    let server = thread::spawn(move || {
        let streams: Vec<_> = (0..CONNECTIONS).map(|_| listener.accept().unwrap().0).collect();
        for mut stream in streams {
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        }
    });
    let mut guest = guest();
    let sockets: Vec<_> = (0..CONNECTIONS).map(|_| guest.connected_small(&address)).collect();
    for (number, &socket) in sockets.iter().enumerate() {
        guest.tcp(socket).send_slice(&(number as u32).to_be_bytes()).unwrap();
    }
    for (number, &socket) in sockets.iter().enumerate() {
        guest.expect(socket, &(number as u32).to_be_bytes());
    }
    server.join().unwrap();
}

/// One connection always has data for the guest; the other is served nevertheless.
#[test]
fn tcp_busy_connection_leaves_room_for_another() {
    let (busy, flooder) = server(|mut stream| while stream.write_all(&[0; 65536]).is_ok() {});
    let (address, echo) = server(|mut stream| {
        let mut bytes = [0; 2];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let mut guest = guest();
    let busy = guest.connected(busy);
    let other = guest.connected(address);
    guest.tcp(other).send_slice(b"me").unwrap();
    guest.until(|guest| {
        while guest.tcp(busy).can_recv() {
            guest.tcp(busy).recv(|bytes| (bytes.len(), ())).unwrap();
        }
        (guest.tcp(other).recv_queue() == 2).then_some(())
    });
    echo.join().unwrap();
    drop(guest);
    flooder.join().unwrap();
}

/// The device's event loop relies on this: events make the descriptor readable until they are handled.
#[test]
fn descriptor_is_readable_when_there_is_news_and_only_then() {
    let (address, server) = server(|stream| stream);
    let mut guest = guest();
    let socket = guest.connected(address);
    let mut stream = server.join().unwrap();
    while guest.turn() {}
    assert!(!guest.is_readable(0));
    stream.write_all(b"news").unwrap();
    assert!(guest.is_readable(10));
    assert!(guest.is_readable(0));
    guest.expect(socket, b"news");
    while guest.turn() {}
    assert!(!guest.is_readable(0));
    // The timer: after a quiet second the connection releases its buffers.
    assert!(guest.is_readable(10));
}

/// smoltcp treats the window of its SYN as scaled; a guest that does so too must not harm it.
#[test]
fn tcp_guest_sends_past_the_window_of_our_syn_is_ignored() {
    let (address, server) = server(|mut stream| stream.read(&mut [0; 1]).unwrap());
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    let mut guest = guest();
    let frames = by_hand::past_the_window(&mut guest, port);
    assert_eq!(frames, 0, "nothing that was sent has a place");
    server_gets_nothing(guest, server);
}

fn server_gets_nothing(mut guest: Guest, server: thread::JoinHandle<usize>) {
    guest.turn();
    // Dropping the network ends the host's connection.
    drop(guest);
    assert_eq!(server.join().unwrap(), 0);
}

/// Frames that no correct stack would send.
mod by_hand {
    use smoltcp::wire::{TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

    use super::guest::{Guest, frame_of};

    fn segment() -> TcpRepr<'static> {
        TcpRepr {
            src_port: 50000,
            dst_port: 0,
            control: TcpControl::None,
            seq_number: TcpSeqNumber(1000),
            ack_number: None,
            window_len: 65535,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        }
    }

    pub(crate) fn syn(to: [u8; 4], port: u16) -> Vec<u8> {
        frame_of(to, &TcpRepr { dst_port: port, control: TcpControl::Syn, ..segment() })
    }

    pub(crate) fn ack(to: [u8; 4], port: u16) -> Vec<u8> {
        frame_of(to, &TcpRepr { dst_port: port, ack_number: Some(TcpSeqNumber(7)), ..segment() })
    }

    /// Connects to `port` and sends segments that start 300 KiB after the handshake. Returns how many were
    /// answered.
    pub(crate) fn past_the_window(guest: &mut Guest, port: u16) -> usize {
        let to = [10, 0, 2, 2];
        let hello = TcpRepr { dst_port: port, control: TcpControl::Syn, window_scale: Some(7), ..segment() };
        guest.net.send(&frame_of(to, &hello));
        let greeting = guest.next_frame();
        let number = TcpPacket::new_checked(&greeting[34..]).unwrap().seq_number();
        let established = TcpRepr {
            dst_port: port,
            seq_number: TcpSeqNumber(1001),
            ack_number: Some(number + 1),
            ..segment()
        };
        guest.net.send(&frame_of(to, &established));
        for place in 0..4 {
            let payload = &[0; 60_000];
            let seq_number = TcpSeqNumber(1001 + 250_000 + place * 60_000);
            guest.net.send(&frame_of(to, &TcpRepr { seq_number, payload, ..established }));
        }
        std::iter::from_fn(|| guest.receive()).count()
    }
}
