//! Datagrams and echo requests from the guest.

mod guest;

use std::net::{SocketAddr, UdpSocket};
use std::thread;

use guest::{GATEWAY, GATEWAY_V6, Guest, RESOLVER, pattern, settings};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress};
use vmm_usernet::{Allow, Resolver};

/// A server that answers one datagram with "re:" and its contents, and its address as the guest sees it.
fn echo_server(address: &str, seen_as: &str) -> (SocketAddr, thread::JoinHandle<()>) {
    let socket = UdpSocket::bind(address).unwrap();
    let port = socket.local_addr().unwrap().port();
    let serve = move || {
        let mut buffer = [0; 65536];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(&[b"re:", &buffer[..len]].concat(), from).unwrap();
    };
    (format!("{seen_as}:{port}").parse().unwrap(), thread::spawn(serve))
}

#[test]
fn udp_datagram_is_answered() {
    let (address, server) = echo_server("127.0.0.1:0", GATEWAY);
    let mut guest = Guest::new(settings(&["host:*"]));
    let socket = guest.udp_socket(5000);
    guest.udp(socket).send_slice(b"hello", address).unwrap();
    assert_eq!(guest.datagram(socket), (b"re:hello".to_vec(), address));
    server.join().unwrap();
}

#[test]
fn udp_datagram_over_ipv6_is_answered() {
    let (address, server) = echo_server("[::1]:0", &format!("[{GATEWAY_V6}]"));
    let mut guest = Guest::new(settings(&["host:*"]));
    let socket = guest.udp_socket(5000);
    guest.udp(socket).send_slice(b"six", address).unwrap();
    assert_eq!(guest.datagram(socket), (b"re:six".to_vec(), address));
    server.join().unwrap();
}

#[test]
fn udp_long_datagram_is_answered() {
    let (address, server) = echo_server("127.0.0.1:0", GATEWAY);
    let mut guest = Guest::new(settings(&["host:*"]));
    let socket = guest.udp_socket(5000);
    // The maximum for an MTU of 65520, less the three bytes that the reply adds.
    let data = pattern(65520 - 28 - 3);
    guest.udp(socket).send_slice(&data, address).unwrap();
    assert!(guest.datagram(socket).0 == [b"re:", &data[..]].concat());
    server.join().unwrap();
}

/// The first datagram opens the host's socket and learns that the port is closed.
#[test]
fn udp_to_closed_port_is_unreachable() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut guest = Guest::new(settings(&["host:*"]));
    let socket = guest.udp_socket(5000);
    let address: SocketAddr = format!("{GATEWAY}:{port}").parse().unwrap();
    guest.udp(socket).send_slice(b"anybody?", address).unwrap();
    // Destination unreachable: port.
    guest.frame(|frame| (Guest::icmp(frame) == Some((3, 3))).then_some(()));
}

#[test]
fn udp_rules_refuse_is_prohibited_and_told_once() {
    let mut guest = Guest::new(settings(&["dns"]));
    let socket = guest.udp_socket(5000);
    let address: SocketAddr = "192.0.2.7:123".parse().unwrap();
    for _ in 0..2 {
        guest.udp(socket).send_slice(b"time?", address).unwrap();
        // Destination unreachable: communication administratively prohibited (RFC 1812 §5.2.7.1).
        guest.frame(|frame| (Guest::icmp(frame) == Some((3, 13))).then_some(()));
    }
    guest.until(|guest| (guest.net.refused() == 2).then_some(()));
    let notice = guest.net.take_notice();
    assert_eq!(notice.as_deref(), Some(r#"refused udp 192.0.2.7:123: no rule of "allow" permits it"#));
    assert_eq!(guest.net.take_notice(), None);
}

#[test]
fn udp_rules_refuse_over_ipv6_is_prohibited() {
    let mut guest = Guest::new(settings(&[]));
    let socket = guest.udp_socket(5000);
    let address: SocketAddr = "[2001:db8::7]:123".parse().unwrap();
    guest.udp(socket).send_slice(b"time?", address).unwrap();
    // Destination unreachable: administratively prohibited (RFC 4443 §3.1).
    guest.frame(|frame| (Guest::icmp(frame) == Some((1, 1))).then_some(()));
}

#[test]
fn dns_question_goes_to_the_resolver() {
    let (at, server) = echo_server("127.0.0.1:0", "127.0.0.1");
    let mut with_resolver = settings(&["dns"]);
    with_resolver.resolver = Resolver::At(at);
    let mut guest = Guest::new(with_resolver);
    let socket = guest.udp_socket(5000);
    let resolver: SocketAddr = format!("{RESOLVER}:53").parse().unwrap();
    guest.udp(socket).send_slice(b"who?", resolver).unwrap();
    assert_eq!(guest.datagram(socket), (b"re:who?".to_vec(), resolver));
    server.join().unwrap();
}

#[test]
fn dns_question_by_tcp_goes_to_the_resolver() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut with_resolver = settings(&["dns"]);
    with_resolver.resolver = Resolver::At(listener.local_addr().unwrap());
    let mut guest = Guest::new(with_resolver);
    guest.connected(format!("{RESOLVER}:53"));
    listener.accept().unwrap();
}

#[test]
fn resolver_has_no_other_port() {
    let mut open = settings(&[]);
    open.allow = Allow::all();
    let mut guest = Guest::new(open);
    let socket = guest.udp_socket(5000);
    guest.udp(socket).send_slice(b"time?", (IpAddress::v4(10, 0, 2, 3), 123)).unwrap();
    guest.frame(|frame| (Guest::icmp(frame) == Some((3, 3))).then_some(()));
}

/// At most one flow: each new destination replaces the one before, and all are served.
#[test]
fn udp_table_full_replaces_flow() {
    let mut one = settings(&["host:*"]);
    one.flows = 1;
    let mut guest = Guest::new(one);
    let socket = guest.udp_socket(5000);
    let servers: Vec<_> = (0..3).map(|_| echo_server("127.0.0.1:0", GATEWAY)).collect();
    for (address, server) in servers {
        guest.udp(socket).send_slice(b"x", address).unwrap();
        assert_eq!(guest.datagram(socket).1, address);
        server.join().unwrap();
    }
}

/// The host permits it by `net.ipv4.ping_group_range`; otherwise the guest is told that it is prohibited.
#[test]
fn echo_request_is_answered_or_prohibited() {
    let mut guest = Guest::new(settings(&["icmp:127.0.0.1"]));
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(0x1234)).unwrap();
    let handle = guest.sockets.add(socket);
    let request = Icmpv4Repr::EchoRequest { ident: 0x1234, seq_no: 7, data: b"ping" };
    let mut bytes = vec![0; request.buffer_len()];
    request.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &ChecksumCapabilities::default());
    let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(handle);
    socket.send_slice(&bytes, IpAddress::v4(127, 0, 0, 1)).unwrap();
    let answer = guest.frame(|frame| Guest::icmp(frame).map(|kind| (kind, frame[38..].to_vec())));
    match answer {
        ((0, 0), rest) => assert_eq!(rest, [&[0x12, 0x34, 0, 7][..], b"ping"].concat()),
        (kind, _) => assert_eq!(kind, (3, 13)),
    }
}

#[test]
fn other_protocol_is_unreachable() {
    let mut guest = Guest::new(settings(&[]));
    // GRE, protocol 47: version 4, 20-byte header, 24 bytes in total, time to live 64, checksum computed by
    // hand.
    let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 47, 0, 0, 10, 0, 2, 15, 192, 0, 2, 1, 0, 0, 8, 0];
    smoltcp::wire::Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
    guest.net.send(&[&guest::GATEWAY_MAC[..], &guest::GUEST_MAC, &[8, 0], &packet].concat());
    // Destination unreachable: protocol.
    assert_eq!(guest.receive().as_deref().and_then(Guest::icmp), Some((3, 2)));
}

/// A flood in both directions that nobody reads; afterwards the link works.
#[test]
fn udp_flood_both_ways_leaves_link_working() {
    let flooder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut guest = Guest::new(settings(&["host:*"]));
    let socket = guest.udp_socket(5000);
    let flood: SocketAddr = format!("{GATEWAY}:{}", flooder.local_addr().unwrap().port()).parse().unwrap();
    guest.udp(socket).send_slice(b"open", flood).unwrap();
    guest.until(|guest| (guest.udp(socket).send_queue() == 0).then_some(()));
    let (_, from) = flooder.recv_from(&mut [0; 16]).unwrap();
    for _ in 0..5000 {
        // Neither end reads: the sockets of both fill up, and the rest is lost.
        flooder.send_to(&[1; 1000], from).unwrap();
        let _ = guest.udp(socket).send_slice(&[2; 1000], flood);
        guest.send_only();
    }
    for _ in 0..100 {
        flooder.send_to(&[1; 1000], from).unwrap();
        let _ = guest.udp(socket).send_slice(&[2; 1000], flood);
        guest.turn();
    }
    let (address, server) = echo_server("127.0.0.1:0", GATEWAY);
    let other = guest.udp_socket(5001);
    guest.udp(other).send_slice(b"still there?", address).unwrap();
    assert_eq!(guest.datagram(other).0, b"re:still there?");
    server.join().unwrap();
}
