//! A guest that is restored with another network: its connections end at once.

mod guest;

use std::io::{Read, Write};
use std::net::TcpListener;

use guest::{GATEWAY, GATEWAY_V6, Guest, settings};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use vmm_usernet::UserNet;

fn guest() -> Guest {
    Guest::new(settings(&["host:*"]))
}

/// A connection to a server at this address of the host's, which both ends have used, and the server's end.
fn used_connection(guest: &mut Guest, loopback: &str, gateway: &str) -> (SocketHandle, std::net::TcpStream) {
    let listener = TcpListener::bind(format!("{loopback}:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = guest.connected(format!("{gateway}:{port}"));
    let (mut server, _) = listener.accept().unwrap();
    guest.tcp(socket).send_slice(b"to the host").unwrap();
    server.write_all(b"to the guest").unwrap();
    guest.expect(socket, b"to the guest");
    server.set_nonblocking(true).unwrap();
    guest.until(|_| server.read_exact(&mut [0; 11]).is_ok().then_some(()));
    (socket, server)
}

/// Replaces the network, as a restore does. The guest has taken all frames.
fn restore(guest: &mut Guest) {
    while guest.turn() {}
    let open = guest.net.open_tcp();
    guest.net = UserNet::open(settings(&["host:*"])).unwrap();
    guest.net.reset_tcp(open);
}

fn is_closed(guest: &mut Guest, socket: SocketHandle) -> Option<()> {
    (guest.tcp(socket).state() == State::Closed).then_some(())
}

#[test]
fn connections_of_a_restored_guest_are_reset() {
    let mut guest = guest();
    let (v4, _server) = used_connection(&mut guest, "127.0.0.1", GATEWAY);
    let (v6, _other) = used_connection(&mut guest, "[::1]", &format!("[{GATEWAY_V6}]"));
    restore(&mut guest);
    guest.until(|guest| is_closed(guest, v4).and(is_closed(guest, v6)));
    used_connection(&mut guest, "127.0.0.1", GATEWAY);
}

/// More than fit into the queue of control frames.
#[test]
fn hundred_connections_of_a_restored_guest_are_all_reset() {
    let mut guest = guest();
    let connections: Vec<_> = (0..100).map(|_| used_connection(&mut guest, "127.0.0.1", GATEWAY)).collect();
    restore(&mut guest);
    guest.until(|guest| connections.iter().try_for_each(|(socket, _)| is_closed(guest, *socket)));
}

/// RFC 5961 §3.2: a guest ignores a reset with any other number.
#[test]
fn reset_has_exactly_the_number_that_the_guest_expects() {
    let mut guest = guest();
    let (_socket, _server) = used_connection(&mut guest, "127.0.0.1", GATEWAY);
    while guest.turn() {}
    let [open] = guest.net.open_tcp()[..] else { panic!("there is one connection") };
    restore(&mut guest);
    let frame = guest.receive().expect("a reset");
    let segment = &frame[14 + 20..];
    assert_eq!(segment[4..8], open.next.to_be_bytes());
    assert_eq!(segment[8..12], open.wanted.to_be_bytes());
    assert_eq!(segment[13], 0x14, "RST and ACK");
    assert_eq!(guest.receive(), None);
}

/// The guest has only asked, and asks the new network again.
#[test]
fn connection_that_the_guest_asks_for_is_made_by_the_new_network() {
    let mut guest = guest();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = guest.connect(format!("{GATEWAY}:{port}"));
    // The network has the request, and the guest no answer.
    guest.send_only();
    let open = guest.net.open_tcp();
    assert_eq!(open, []);
    guest.net = UserNet::open(settings(&["host:*"])).unwrap();
    guest.net.reset_tcp(open);
    guest.until(|guest| (guest.tcp(socket).state() == State::Established).then_some(()));
}

#[test]
fn connection_between_families_is_not_reset() {
    let mut guest = guest();
    let (_socket, _server) = used_connection(&mut guest, "127.0.0.1", GATEWAY);
    let [mut open] = guest.net.open_tcp()[..] else { panic!("there is one connection") };
    open.remote = "[fd76:6d6d::2]:80".parse().unwrap();
    guest.net = UserNet::open(settings(&["host:*"])).unwrap();
    guest.net.reset_tcp(vec![open]);
    assert_eq!(guest.receive(), None);
}
