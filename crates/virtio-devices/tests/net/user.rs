//! A card with the user backend, with hand-made guest frames and servers on the host's loopback.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use vmm_virtio::VirtioDevice;
use vmm_virtio::testing::{Buf, DEADLINE, Driver};

use super::{RECEIVEQ, TRANSMITQ, assert_refused, errors, framed, try_open, wait};

const F_CSUM: u64 = 1;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MTU: u64 = 1 << 3;
/// Required by all segmentation offloads (virtio 1.2 §5.1.3.1): HOST and GUEST, TSO4 and TSO6.
const F_TSO: u64 = 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0, 2, 2];
const GUEST: [u8; 4] = [10, 0, 2, 15];
const GATEWAY: [u8; 4] = [10, 0, 2, 2];
/// TEST-NET-1 (RFC 5737), which is unused.
const ELSEWHERE: [u8; 4] = [192, 0, 2, 7];
const UDP: u8 = 17;
const TCP: u8 = 6;

fn user(fields: &[(&str, Value)]) -> Value {
    let mut config = json!({"backend": "user", "mac": "52:54:00:12:34:56"});
    fields.iter().for_each(|(name, value)| config[name] = value.clone());
    config
}

fn running(fields: &[(&str, Value)], features: u64) -> Driver {
    let mut driver = Driver::new(try_open(user(fields)).unwrap(), 1);
    driver.init(features);
    driver
}

/// A card that may reach this server.
fn reaching(server: SocketAddr, features: u64) -> Driver {
    running(&[("allow", json!([format!("host:{}", server.port())]))], features)
}

fn udp_server() -> (UdpSocket, SocketAddr) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

fn ethernet(kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&GATEWAY_MAC, &MAC, &kind[..], payload].concat()
}

/// A packet from the guest.
fn ipv4(protocol: u8, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len() as u16).to_be_bytes();
    let mut header = vec![0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend([GUEST, to].concat());
    let sum = checksum(0, &header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    ethernet([8, 0], &[&header, payload].concat())
}

/// RFC 1071, for an even number of bytes.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum = words.fold(start, |sum, word| sum + word);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum + (sum >> 16)) as u16
}

/// An ARP reply with the guest's address (RFC 826).
fn announcement() -> Vec<u8> {
    let packet = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &MAC, &GUEST, &GATEWAY_MAC, &GATEWAY].concat();
    ethernet([8, 6], &packet)
}

fn udp(to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len() as u16).to_be_bytes();
    // From port 5000, without a checksum.
    let header = [&[0x13, 0x88][..], &port.to_be_bytes(), &len, &[0, 0]].concat();
    ipv4(UDP, to, &[&header, payload].concat())
}

fn syn(to: [u8; 4], port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    // From port 5000, sequence number 1, five header words, SYN, a window; the checksum isn't verified.
    ipv4(TCP, to, &[0x13, 0x88, port[0], port[1], 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0])
}

fn transmit(driver: &mut Driver, frame: &[u8]) {
    driver.queue(TRANSMITQ).request(&[Buf::Read(&framed(frame))]);
}

fn give_buffers(driver: &mut Driver, count: usize) {
    (0..count).for_each(|_| _ = driver.queue(RECEIVEQ).add(&[Buf::Write(2048)]));
    driver.queue(RECEIVEQ).kick();
}

/// The next frame, with its header.
fn take(driver: &mut Driver) -> Vec<u8> {
    wait(driver).written().to_vec()
}

#[test]
fn user_card_offers_checksums_and_the_longest_packet() {
    let driver = running(&[], 0);
    assert_eq!(driver.offered() & (F_CSUM | F_GUEST_CSUM | F_MTU | F_TSO), F_CSUM | F_GUEST_CSUM | F_MTU);
    assert_eq!(driver.config(10, 2), 65520_u16.to_le_bytes());
    let driver = running(&[("mtu", json!(1280))], 0);
    assert_eq!(driver.config(10, 2), 1280_u16.to_le_bytes());
}

#[test]
fn user_gateway_answers_arp() {
    let mut driver = running(&[], 0);
    give_buffers(&mut driver, 1);
    // RFC 826: an Ethernet and IPv4 request for the gateway's address.
    let head = [0, 1, 8, 0, 6, 4, 0];
    let request = [&head[..], &[1], &MAC, &GUEST, &[0; 6], &GATEWAY].concat();
    transmit(&mut driver, &ethernet([8, 6], &request));
    let reply = take(&mut driver);
    assert_eq!(reply[12..24], [MAC, GATEWAY_MAC].concat());
    assert_eq!(reply[26..54], [&head[..], &[2], &GATEWAY_MAC, &GATEWAY, &MAC, &GUEST].concat());
}

#[test]
fn user_connection_without_a_rule_is_reset_counted_and_told_once() {
    let mut driver = running(&[], 0);
    give_buffers(&mut driver, 3);
    (0..3).for_each(|_| transmit(&mut driver, &syn(ELSEWHERE, 80)));
    for _ in 0..3 {
        let reset = take(&mut driver);
        let (ip, tcp) = (&reset[26..46], &reset[46..]);
        assert_eq!((ip[9], &ip[12..16], &ip[16..20]), (TCP, &ELSEWHERE[..], &GUEST[..]));
        assert_eq!((&tcp[..4], tcp[13] & 0x04), (&[0, 80, 0x13, 0x88][..], 0x04));
    }
    driver.suspend();
    assert_eq!(driver.control().counters().refused.get(), 3);
    let told = driver.control().take_notices();
    assert_eq!(told.texts, ["refused tcp 192.0.2.7:80: no rule of \"allow\" permits it"]);
    assert_eq!(told.refused, ["tcp 192.0.2.7:80"]);
}

/// Within one call of the device, without an event of the link in between, so that the guest doesn't wait.
#[test]
fn user_connection_refused_is_answered_before_the_next_frame_is_taken() {
    let mut driver = running(&[], 0);
    give_buffers(&mut driver, 1);
    // Afterwards all work of the start and of the buffers' notification is done.
    transmit(&mut driver, &[0; 14]);
    transmit(&mut driver, &syn(ELSEWHERE, 80));
    // This ends the current call, and no other one starts.
    driver.suspend();
    assert_eq!(driver.queue(RECEIVEQ).try_used().map(|used| used.len), Some(12 + 14 + 20 + 20));
}

#[test]
fn user_datagram_reaches_a_permitted_server_and_its_answer_comes_back() {
    let (server, address) = udp_server();
    let mut driver = reaching(address, 0);
    give_buffers(&mut driver, 1);
    transmit(&mut driver, &udp(GATEWAY, address.port(), b"question"));
    let mut question = [0; 16];
    let (len, guest) = server.recv_from(&mut question).unwrap();
    assert_eq!(&question[..len], b"question");
    server.send_to(b"answer", guest).unwrap();
    let answer = take(&mut driver);
    assert_eq!(answer[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!((&answer[38..42], &answer[54..]), (&GATEWAY[..], &b"answer"[..]));
    // Complete, for a guest that doesn't accept partial checksums: over addresses, protocol and length as
    // well.
    let pseudo = u32::from(UDP) + 14;
    assert_eq!(checksum(pseudo, &answer[38..]), 0);
}

#[test]
fn user_checksum_is_left_to_a_guest_that_completes_it() {
    let (server, address) = udp_server();
    let mut driver = reaching(address, F_GUEST_CSUM);
    give_buffers(&mut driver, 1);
    transmit(&mut driver, &udp(GATEWAY, address.port(), b"question"));
    let (_, guest) = server.recv_from(&mut [0; 16]).unwrap();
    server.send_to(b"answer", guest).unwrap();
    // NEEDS_CSUM, starting after the Ethernet and IPv4 headers, stored in UDP's field.
    assert_eq!(take(&mut driver)[..12], [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 1, 0]);
}

#[test]
fn user_connection_to_a_permitted_server_is_accepted() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let mut driver = reaching(address, 0);
    give_buffers(&mut driver, 1);
    transmit(&mut driver, &syn(GATEWAY, address.port()));
    server.accept().unwrap();
    let answer = take(&mut driver);
    assert_eq!(answer[46 + 13] & 0x3f, 0x12, "SYN and ACK");
}

/// Sends data on the connection of [`syn`] until the window is too small for more, and returns its length.
fn send_until_the_window_closes(driver: &mut Driver, port: u16, first: &[u8]) -> usize {
    let field = |frame: &[u8], at: usize| u32::from_be_bytes(frame[46 + at..50 + at].try_into().unwrap());
    // What the other end sends starts after this.
    let theirs = field(first, 4) + 1;
    let (mut sent, mut window) = (0, u32::MAX);
    while window >= SEGMENT as u32 {
        let ports = [&[0x13, 0x88][..], &port.to_be_bytes()].concat();
        let numbers = [(2 + sent as u32).to_be_bytes(), theirs.to_be_bytes()].concat();
        // Five header words, PSH and ACK.
        let header = [&ports, &numbers, &[0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0][..]].concat();
        transmit(driver, &ipv4(TCP, GATEWAY, &[&header[..], &[b'g'; SEGMENT]].concat()));
        sent += SEGMENT;
        // Until everything is acknowledged.
        window = loop {
            give_buffers(driver, 1);
            let frame = take(driver);
            if field(&frame, 8) == 2 + sent as u32 {
                break field(&frame, 12) & 0xffff;
            }
        };
    }
    sent
}

/// Bytes of a segment.
const SEGMENT: usize = 30_000;

#[test]
fn user_data_acknowledged_is_delivered_after_the_guest_has_ended() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let mut driver = reaching(address, 0);
    give_buffers(&mut driver, 1);
    transmit(&mut driver, &syn(GATEWAY, address.port()));
    let (mut stream, _) = server.accept().unwrap();
    let first = take(&mut driver);
    let sent = send_until_the_window_closes(&mut driver, address.port(), &first);
    let mut device = driver.into_device();
    let left = device.deliver(Duration::ZERO);
    let connection = format!("connection of 10.0.2.15:5000 and 10.0.2.2:{}", address.port());
    assert_eq!(left.iter().map(|left| &left.connection).collect::<Vec<_>>(), [&connection]);
    assert!(left[0].len > 0 && left[0].len < sent as u64, "{left:?}");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map(|len| (len, bytes.iter().all(|byte| *byte == b'g')))
    });
    assert_eq!(device.deliver(DEADLINE), []);
    drop(device);
    assert_eq!(reader.join().unwrap().unwrap(), (sent, true));
}

/// A card with a host port forwarded to port 7 of its guest. The port was free a moment ago; if another test
/// has taken it, the next one is tried.
fn forwarding(protocol: &str) -> (Box<dyn VirtioDevice>, u16) {
    let card = |port: u16| try_open(user(&[("forward", json!([format!("{protocol}:127.0.0.1:{port}:7")]))]));
    let ports = std::iter::repeat_with(|| udp_server().1.port());
    ports.take(100).find_map(|port| Some((card(port).ok()?, port))).unwrap()
}

#[test]
fn user_forward_leads_into_the_guest() {
    let (card, port) = forwarding("udp");
    let mut driver = Driver::new(card, 1);
    driver.init(0);
    transmit(&mut driver, &announcement());
    give_buffers(&mut driver, 1);
    let client = udp_server().0;
    client.send_to(b"visitor", ("127.0.0.1", port)).unwrap();
    let frame = take(&mut driver);
    assert_eq!((&frame[12..18], &frame[42..46]), (&MAC[..], &GUEST[..]));
    assert_eq!((&frame[48..50], &frame[54..]), (&[0, 7][..], &b"visitor"[..]));
}

/// The result of connecting to this host port, before anything is sent.
fn connecting(port: u16) -> std::io::Result<usize> {
    let mut client = TcpStream::connect(("127.0.0.1", port))?;
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.read(&mut [0; 1])
}

#[test]
fn user_forward_is_refused_until_a_driver_comes_and_behind_its_reset() {
    let (card, port) = forwarding("tcp");
    let mut driver = Driver::new(card, 1);
    assert_eq!(connecting(port).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    driver.init(0);
    // There is a driver, which is asked for its address, but doesn't respond. The device knows it before it
    // stops.
    give_buffers(&mut driver, 4);
    driver.suspend();
    driver.resume();
    assert_eq!(connecting(port).unwrap_err().kind(), ErrorKind::ConnectionReset);
    driver.reset();
    assert_eq!(connecting(port).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// It resumes with a guest that still has its address.
#[test]
fn user_forward_waits_through_a_pause() {
    let (card, port) = forwarding("tcp");
    let mut driver = Driver::new(card, 1);
    driver.init(0);
    transmit(&mut driver, &announcement());
    driver.suspend();
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    driver.resume();
    give_buffers(&mut driver, 1);
    let syn = take(&mut driver);
    assert_eq!((&syn[12..18], &syn[48..50]), (&MAC[..], &[0, 7][..]));
}

#[test]
fn user_flood_in_both_directions_ends_and_the_network_works_again() {
    let (server, address) = udp_server();
    let mut driver = reaching(address, 0);
    transmit(&mut driver, &udp(GATEWAY, address.port(), b"first"));
    let (_, guest) = server.recv_from(&mut [0; 16]).unwrap();
    // Without receive buffers. 10 MB each way, many times a socket's buffer; a third is undeliverable.
    for port in 1..=5000 {
        transmit(&mut driver, &udp(GATEWAY, address.port(), &[b'g'; 1400]));
        transmit(&mut driver, &syn(ELSEWHERE, port));
        server.send_to(&[b'h'; 1400], guest).unwrap();
    }
    server.set_nonblocking(true).unwrap();
    while server.recv_from(&mut [0; 2048]).is_ok() {}
    server.set_nonblocking(false).unwrap();
    transmit(&mut driver, &udp(GATEWAY, address.port(), b"behind"));
    let mut behind = [0; 2048];
    let (len, guest) = server.recv_from(&mut behind).unwrap();
    assert_eq!(&behind[..len], b"behind");
    server.send_to(b"answer", guest).unwrap();
    let is_answer = |frame: &[u8]| frame.ends_with(b"answer");
    let mut frames = 0;
    loop {
        give_buffers(&mut driver, 1);
        frames += 1;
        if is_answer(&take(&mut driver)) {
            break;
        }
        // The socket was full, and the response found no room.
        server.send_to(b"answer", guest).unwrap();
    }
    // The rest is in a host socket's buffer and the queue of responses.
    assert!(frames < 2500, "{frames}");
    assert_eq!(driver.control().counters().refused.get(), 5000);
}

/// More than the card drops in one turn, of data that its link has already received from the host.
#[test]
fn user_frames_that_do_not_fit_are_dropped_and_the_next_arrives() {
    let (server, address) = udp_server();
    let mut driver = reaching(address, 0);
    transmit(&mut driver, &udp(GATEWAY, address.port(), b"first"));
    let (_, guest) = server.recv_from(&mut [0; 16]).unwrap();
    (0..150).for_each(|_| _ = server.send_to(&[b'h'; 300], guest).unwrap());
    server.send_to(b"short", guest).unwrap();
    driver.queue(RECEIVEQ).add(&[Buf::Write(200)]);
    driver.queue(RECEIVEQ).kick();
    assert!(take(&mut driver).ends_with(b"short"));
    assert_eq!(errors(&driver), 150);
}

#[test]
fn user_frames_that_are_none_are_survived() {
    let mut driver = running(&[("allow", json!("all"))], 0);
    let whole = udp(GATEWAY, 9, b"payload");
    (14..whole.len()).for_each(|len| transmit(&mut driver, &whole[..len]));
    let lies = (0..whole.len() * 8).map(|bit| {
        let mut frame = whole.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        frame
    });
    lies.for_each(|frame| transmit(&mut driver, &frame));
    assert_eq!(errors(&driver), 0);
}

#[test]
fn config_with_a_rule_that_is_none_quotes_it_at_its_place() {
    let problem = |fields: &[(&str, Value)]| try_open(user(fields)).err().unwrap();
    let rule = problem(&[("allow", json!(["dns", "tcp:somewhere:80"]))]);
    assert!(rule.starts_with(r#".allow[1]: "tcp:somewhere:80" "#), "{rule}");
    let forward = problem(&[("forward", json!(["8080:80", "8081"]))]);
    assert!(forward.starts_with(r#".forward[1]: "8081" has no port of the guest"#), "{forward}");
}

#[test]
fn config_with_fields_that_are_no_rules_says_what_they_are() {
    let expected = |found: &str| {
        format!(r#".allow: expected "all" or a list of rules such as ["tcp:*:443"], found {found}"#)
    };
    assert_refused(user(&[("allow", json!("everything"))]), &expected("the string \"everything\""));
    assert_refused(user(&[("allow", json!(443))]), &expected("the number 443"));
    let none = |text: &str| {
        format!(".dns: {text:?} isn't a server's address: write one as \"192.0.2.1\" or \"127.0.0.1:5353\"")
    };
    assert_refused(user(&[("dns", json!("resolver.example"))]), &none("resolver.example"));
    assert_refused(user(&[("dns", json!("127.0.0.1:0"))]), &none("127.0.0.1:0"));
    assert_refused(user(&[("dns", json!("0.0.0.0"))]), &none("0.0.0.0"));
}

#[test]
fn config_with_numbers_that_the_user_backend_cannot_have_is_refused() {
    assert_refused(
        user(&[("mtu", json!(1279))]),
        ".mtu: an MTU of 1279 is less than IPv6 allows: make it 1280 or more",
    );
    assert_refused(
        user(&[("queues", json!(2))]),
        ".queues: the user backend has a single queue pair, remove \"queues\"",
    );
}

#[test]
fn config_with_a_port_in_use_names_the_forward() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("{}:80", taken.local_addr().unwrap());
    let refused = try_open(user(&[("forward", json!([forward]))])).err().unwrap();
    let expected = format!(
        ".forward[0]: forward {forward:?}: can't listen at {}: Address already in use (os error 98): choose another port, \
         or stop what listens there",
        taken.local_addr().unwrap()
    );
    assert_eq!(refused, expected);
}

#[test]
fn config_with_rules_for_a_backend_that_keeps_none_is_refused() {
    let with = |field: &str, value: Value| {
        let mut config = json!({"backend": {"tap": "tap0"}});
        config[field] = value;
        config
    };
    let refused = |field: &str| {
        format!(".{field}: only \"backend\": \"user\" supports this; use that, or remove the field")
    };
    assert_refused(with("allow", json!("all")), &refused("allow"));
    assert_refused(with("forward", json!([])), &refused("forward"));
    assert_refused(with("dns", json!("127.0.0.1")), &refused("dns"));
}

/// The guest's part of a handshake with a server that accepts, from port 5000; returns the sequence number of the server's next byte.
fn shake_hands(driver: &mut Driver, port: u16) -> [u8; 4] {
    give_buffers(driver, 1);
    transmit(driver, &syn(GATEWAY, port));
    let answer = take(driver);
    let segment = &answer[12 + 14 + 20..];
    assert_eq!(segment[13], 0x12, "SYN and ACK");
    let next = u32::from_be_bytes(segment[4..8].try_into().unwrap()).wrapping_add(1).to_be_bytes();
    let [a, b] = port.to_be_bytes();
    let mut ack = vec![0x13, 0x88, a, b, 0, 0, 0, 2];
    ack.extend(next);
    ack.extend([0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    transmit(driver, &ipv4(TCP, GATEWAY, &ack));
    next
}

#[test]
fn connections_of_a_restored_guest_are_reset() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let allow = [("allow", json!([format!("host:{port}")]))];
    let mut driver = running(&allow, 0);
    let next = shake_hands(&mut driver, port);
    let (mut accepted, _) = server.accept().unwrap();
    let mut driver = driver.move_to(try_open(user(&allow)).unwrap());
    assert_eq!(
        accepted.read(&mut [0; 1]).map_err(|error| error.kind()).unwrap_or(0),
        0,
        "the source is gone"
    );
    give_buffers(&mut driver, 1);
    let reset = take(&mut driver);
    let segment = &reset[12 + 14 + 20..];
    assert_eq!((&segment[4..8], segment[13]), (&next[..], 0x14), "RST and ACK");
}

#[test]
fn restored_card_has_the_link_that_the_user_has_set_down() {
    let driver = running(&[], 0);
    driver.update(json!({"link": "down"})).unwrap();
    let driver = driver.move_to(try_open(user(&[])).unwrap());
    assert_eq!(driver.report()["link"], "down");
    // VIRTIO_NET_S_LINK_UP.
    assert_eq!(driver.config(6, 2), [0, 0]);
}

/// Why a card with these fields refuses the state of one without.
fn refusal(fields: &[(&str, Value)]) -> String {
    let source = running(&[], 0);
    source.suspend();
    let section = source.save().unwrap();
    source.beside(try_open(user(fields)).unwrap()).load(&section).unwrap_err().to_string()
}

#[test]
fn state_of_a_card_with_another_address_or_mtu_is_refused() {
    let text = refusal(&[("mac", json!("52:54:00:12:34:57"))]);
    let expected = "test: virtio.net: mac: is 52:54:00:12:34:56, that of this card 52:54:00:12:34:57";
    assert_eq!(text, expected);
    let text = refusal(&[("mtu", json!(1500))]);
    assert_eq!(text, "test: virtio.net: mtu: is 65520, that of this card 1500");
}
