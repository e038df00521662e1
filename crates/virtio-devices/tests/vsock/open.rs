//! How connections are opened, in both directions, and transfer data.

use std::io::Write;
use std::os::unix::net::UnixStream;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use serde_json::json;
use vmm_virtio::testing::Buf;
use vmm_virtio_devices::vsock::packet::{Header, Op};

use super::guest::{Flow, Guest, RECEIVEQ, TRANSMITQ};
use super::{
    GUEST_PORT, HOST_PORT, MOMENT, client, counted, from_guest, from_host, line, listener, read, read_all,
    running, try_open,
};

#[test]
fn client_of_the_host_reaches_the_guest_and_data_goes_both_ways() {
    let (mut guest, directory) = running();
    let mut client = client(&directory, GUEST_PORT);
    let mut flow = guest.accept();
    assert_eq!(flow.guest_port, GUEST_PORT);
    assert_eq!(flow.host_port, 1 << 30);
    assert_eq!(line(&mut client), "OK 1073741824\n");
    client.write_all(b"to the guest").unwrap();
    assert_eq!(guest.expect_data(&mut flow, 12), b"to the guest");
    guest.send_data(&mut flow, b"to the host");
    assert_eq!(read(&mut client, 11), b"to the host");
    guest.settle();
    let counters = guest.driver.control().counters();
    assert_eq!((counters.bytes_in.get(), counters.bytes_out.get(), counters.errors.get()), (12, 11, 0));
}

#[test]
fn program_of_the_guest_reaches_the_host_and_data_goes_both_ways() {
    let (mut guest, directory) = running();
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    guest.send_data(&mut flow, &counted(65_536));
    assert_eq!(read(&mut socket, 65_536), counted(65_536));
    socket.write_all(&counted(10_000)).unwrap();
    assert_eq!(guest.expect_data(&mut flow, 10_000), counted(10_000));
}

#[test]
fn client_that_sends_data_behind_its_line_loses_none() {
    let (mut guest, directory) = running();
    let mut client = UnixStream::connect(directory.path().join("v.sock")).unwrap();
    client.write_all(b"CONNECT 52\nat once").unwrap();
    let mut flow = guest.accept();
    assert_eq!(guest.expect_data(&mut flow, 7), b"at once");
    assert_eq!(line(&mut client), format!("OK {}\n", flow.host_port));
}

#[test]
fn client_that_sends_its_line_in_pieces_is_understood() {
    let (mut guest, directory) = running();
    let mut client = UnixStream::connect(directory.path().join("v.sock")).unwrap();
    client.write_all(b"connect").unwrap();
    guest.expect_nothing(MOMENT);
    client.write_all(b" 52\r").unwrap();
    guest.expect_nothing(MOMENT);
    client.write_all(b"\n").unwrap();
    let flow = guest.accept();
    assert_eq!(line(&mut client), format!("OK {}\n", flow.host_port));
}

#[test]
fn client_that_says_something_else_is_sent_away() {
    let (mut guest, directory) = running();
    let mut client = UnixStream::connect(directory.path().join("v.sock")).unwrap();
    client.write_all(b"HELLO 52\n").unwrap();
    assert_eq!(read_all(&mut client), b"");
    guest.expect_nothing(MOMENT);
}

#[test]
fn client_of_a_port_where_nobody_listens_is_sent_away() {
    let (mut guest, directory) = running();
    let mut client = client(&directory, GUEST_PORT);
    let (header, _) = guest.packet();
    let flow = Flow::new(header.src_port, header.dst_port);
    guest.send_op(&flow, Op::Rst);
    assert_eq!(read_all(&mut client), b"");
}

#[test]
fn client_that_goes_before_it_was_taken_is_told_to_the_guest() {
    let (mut guest, directory) = running();
    let gone = client(&directory, GUEST_PORT);
    let (request, _) = guest.packet();
    drop(gone);
    let (header, _) = guest.packet();
    assert_eq!((header.op, header.src_port), (Op::Rst as u16, request.src_port));
}

#[test]
fn clients_of_the_same_port_have_ports_of_their_own() {
    let (mut guest, directory) = running();
    let (first, _one) = from_host(&mut guest, &directory);
    let (second, _two) = from_host(&mut guest, &directory);
    assert_ne!(first.host_port, second.host_port);
}

#[test]
fn program_of_the_guest_that_nobody_listens_to_is_refused() {
    let (mut guest, directory) = running();
    let mut flow = guest.request(HOST_PORT);
    guest.expect(&mut flow, Op::Rst);
    // A regular file, and the socket of a dead listener.
    std::fs::write(directory.path().join("v.sock_7"), b"").unwrap();
    drop(listener(&directory, 8));
    let (mut file, mut dead) = (guest.request(7), guest.request(8));
    guest.expect(&mut file, Op::Rst);
    guest.expect(&mut dead, Op::Rst);
    assert_eq!(guest.driver.control().counters().errors.get(), 3);
}

#[test]
fn program_of_the_guest_waits_for_a_host_that_has_too_many_clients() {
    let (mut guest, directory) = running();
    let path = directory.path().join("v.sock_9");
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    // The backlog is one.
    listen(&socket, 0).unwrap();
    let _first = guest.connect(9);
    let mut second = guest.request(9);
    guest.expect_nothing(MOMENT);
    let _accepted = rustix::net::accept(&socket).unwrap();
    guest.expect(&mut second, Op::Response);
}

/// Two machines, at `v.sock` and `v.sock_1`: port 1 of the first must not lead into the second.
#[test]
fn program_of_the_guest_reaches_no_socket_of_another_machine() {
    let (mut guest, directory) = running();
    let _other = Guest::new(try_open(directory.path(), json!({"path": "v.sock_1"})).unwrap());
    let mut flow = guest.request(1);
    guest.expect(&mut flow, Op::Rst);
    // A host program at such a path is reached as usual.
    let _program = listener(&directory, 2);
    guest.connect(2);
}

#[test]
fn descriptors_of_a_guest_in_any_pieces_are_understood() {
    let (mut guest, directory) = running();
    let (flow, mut socket) = from_guest(&mut guest, &directory);
    let header = Header { len: 5, ..flow.header(Op::Rw) };
    let bytes = [&header.to_bytes()[..], b"hello"].concat();
    let pieces: Vec<_> = bytes.chunks(7).map(Buf::Read).collect();
    guest.driver.queue(TRANSMITQ).request(&pieces);
    assert_eq!(read(&mut socket, 5), b"hello");
}

#[test]
fn data_of_a_host_that_closes_arrives_before_the_end() {
    let (mut guest, directory) = running();
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    socket.write_all(&counted(50_000)).unwrap();
    drop(socket);
    assert_eq!(guest.expect_data(&mut flow, 50_000), counted(50_000));
    guest.expect(&mut flow, Op::Shutdown);
}

#[test]
fn data_for_a_chain_without_room_for_it_waits_for_the_next() {
    let (mut guest, directory) = running();
    // Only the following buffers from here on.
    guest.is_generous = false;
    guest.init();
    let listener = listener(&directory, HOST_PORT);
    guest.request(HOST_PORT);
    let response = guest.driver.queue(RECEIVEQ).request(&[Buf::Write(44)]);
    assert_eq!(response.len, 44);
    let mut socket = listener.accept().unwrap().0;
    socket.write_all(b"data").unwrap();
    let texts = [44, 10, 46, 100].map(|len| {
        let used = guest.driver.queue(RECEIVEQ).request(&[Buf::Write(len)]);
        String::from_utf8(used.written().get(44..).unwrap_or_default().to_vec()).unwrap()
    });
    assert_eq!(texts, ["", "", "da", "ta"]);
    assert_eq!(guest.driver.control().counters().errors.get(), 2);
}
