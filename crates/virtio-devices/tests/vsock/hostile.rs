//! A guest that violates the protocol or exhausts resources.

use std::os::unix::net::UnixStream;

use vmm_virtio::testing::Buf;
use vmm_virtio_devices::vsock::packet::{HEADER_LEN, Header, Op, SHUT_BOTH, TYPE_STREAM};

use super::guest::{Flow, RECEIVEQ, TRANSMITQ};
use super::{CID, HOST_PORT, MOMENT, from_guest, from_host, listener, read, read_all, running};

fn errors(guest: &super::Guest) -> u64 {
    guest.driver.control().counters().errors.get()
}

#[test]
fn packet_shorter_than_a_header_is_dropped() {
    let (mut guest, _directory) = running();
    let header = Flow::new(HOST_PORT, 1).header(Op::Request).to_bytes();
    (0..HEADER_LEN).step_by(43).for_each(|len| {
        guest.driver.queue(TRANSMITQ).request(&[Buf::Read(&header[..len.max(1)])]);
    });
    // With no readable part at all.
    guest.driver.queue(TRANSMITQ).request(&[Buf::Write(100)]);
    guest.expect_nothing(MOMENT);
    assert_eq!(errors(&guest), 3);
}

#[test]
fn packet_that_is_not_from_the_guest_or_not_to_the_host_is_dropped() {
    let (mut guest, directory) = running();
    let _listener = listener(&directory, HOST_PORT);
    let request = Flow::new(HOST_PORT, 1).header(Op::Request);
    guest.send(&Header { src_cid: u64::from(CID) + 1, ..request }, &[]);
    guest.send(&Header { src_cid: u64::from(CID) | 1 << 32, ..request }, &[]);
    guest.send(&Header { dst_cid: 1, ..request }, &[]);
    guest.send(&Header { dst_cid: CID.into(), ..request }, &[]);
    guest.expect_nothing(MOMENT);
    assert_eq!(errors(&guest), 4);
}

#[test]
fn packet_of_another_type_is_answered_by_a_reset_of_that_type_and_ends_nothing() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    // VIRTIO_VSOCK_TYPE_SEQPACKET, which isn't offered, and an unknown type.
    for kind in [2, 0xffff] {
        guest.send(&Header { kind, ..flow.header(Op::Rw) }, &[]);
        let (header, _) = guest.packet();
        assert_eq!((header.kind, header.op, header.dst_port), (kind, Op::Rst as u16, flow.guest_port));
        guest.send(&Header { kind, ..flow.header(Op::Rst) }, &[]);
    }
    guest.expect_nothing(MOMENT);
    guest.send_data(&mut flow, b"on");
    assert_eq!(read(&mut client, 2), b"on");
}

#[test]
fn packet_of_an_unknown_operation_ends_its_connection() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    guest.send(&Header { op: 8, ..flow.header(Op::Rw) }, &[]);
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(read_all(&mut client), b"");
    guest.send(&Header { op: 0, ..flow.header(Op::Rw) }, &[]);
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(errors(&guest), 2);
}

#[test]
fn packet_with_a_length_beyond_its_chain_ends_its_connection() {
    let (mut guest, directory) = running();
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    guest.send(&Header { len: 5, ..flow.header(Op::Rw) }, b"four");
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(read_all(&mut socket), b"");
    guest.send(&Header { len: u32::MAX, ..flow.header(Op::Rw) }, b"four");
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(errors(&guest), 2);
}

#[test]
fn packet_with_bytes_behind_its_length_is_cut() {
    let (mut guest, directory) = running();
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    guest.send(&Header { len: 2, ..flow.header(Op::Rw) }, b"four");
    guest.send(&Header { len: 0, ..flow.header(Op::Rw) }, b"none");
    // A length is meaningless here.
    guest.send(&Header { len: u32::MAX, flags: SHUT_BOTH, ..flow.header(Op::Shutdown) }, b"none");
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(read_all(&mut socket), b"fo");
    assert_eq!(errors(&guest), 0);
}

#[test]
fn packet_for_no_connection_is_answered_by_a_reset_unless_it_is_one() {
    let (mut guest, _directory) = running();
    let mut flow = Flow::new(HOST_PORT, 9);
    for op in [Op::Response, Op::Shutdown, Op::Rw, Op::CreditUpdate, Op::CreditRequest] {
        guest.send_op(&flow, op);
        let (header, _) = guest.expect(&mut flow, Op::Rst);
        assert_eq!((header.kind, header.len, header.flags), (TYPE_STREAM, 0, 0));
    }
    guest.send_op(&flow, Op::Rst);
    guest.expect_nothing(MOMENT);
}

#[test]
fn packet_at_the_wrong_time_ends_its_connection() {
    let (mut guest, directory) = running();
    // A second REQUEST, a second RESPONSE, a RESPONSE to the guest's own request.
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    guest.send_op(&flow, Op::Request);
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(read_all(&mut client), b"");
    let (mut flow, _client) = from_host(&mut guest, &directory);
    guest.send_op(&flow, Op::Response);
    guest.expect(&mut flow, Op::Rst);
    let (mut flow, _socket) = from_guest(&mut guest, &directory);
    guest.send_op(&flow, Op::Response);
    guest.expect(&mut flow, Op::Rst);
    // Data before the response.
    let mut early = super::client(&directory, 1);
    let (request, _) = guest.packet();
    let mut flow = Flow::new(request.src_port, request.dst_port);
    guest.send_data(&mut flow, b"x");
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(read_all(&mut early), b"");
}

#[test]
fn buffer_of_the_guests_that_takes_no_header_comes_back_empty() {
    let (mut guest, _directory) = running();
    guest.is_generous = false;
    guest.init();
    guest.send_op(&Flow::new(HOST_PORT, 9), Op::Rw);
    let used = guest.driver.queue(RECEIVEQ).request(&[Buf::Write(43)]);
    assert_eq!(used.len, 0);
    let used = guest.driver.queue(RECEIVEQ).request(&[Buf::Read(&[0; 44])]);
    assert_eq!(used.len, 0);
    // A header in three pieces.
    let used = guest.driver.queue(RECEIVEQ).request(&[Buf::Write(1), Buf::Write(42), Buf::Write(1)]);
    assert_eq!(used.len, 44);
}

#[test]
fn guest_that_asks_without_end_and_takes_no_answer_is_bounded_and_served_again() {
    let (mut guest, directory) = running();
    guest.is_generous = false;
    guest.init();
    let header = Flow::new(HOST_PORT, 0).header(Op::Request);
    (0..10_000).for_each(|port| guest.send(&Header { src_port: port, ..header }, &[]));
    guest.settle();
    assert_eq!(errors(&guest), 10_000 + (10_000 - 4096), "each failed, and some aren't even answered");
    guest.is_generous = true;
    guest.give_buffers();
    for port in 0..4096 {
        let (header, _) = guest.packet();
        assert_eq!((header.op, header.dst_port), (Op::Rst as u16, port));
    }
    guest.expect_nothing(MOMENT);
    from_guest(&mut guest, &directory);
}

#[test]
fn guest_that_opens_and_ends_connections_without_end_and_takes_no_answer_is_bounded() {
    let (mut guest, directory) = running();
    guest.is_generous = false;
    guest.init();
    let path = directory.path().join(format!("v.sock_{HOST_PORT}"));
    let listener = listener(&directory, HOST_PORT);
    for _ in 0..2000 {
        let flow = guest.request(HOST_PORT);
        guest.send_op(&flow, Op::Rst);
        guest.settle();
        listener.accept().unwrap();
    }
    assert!(UnixStream::connect(path).is_ok());
    drop(listener);
    std::fs::remove_file(directory.path().join(format!("v.sock_{HOST_PORT}"))).unwrap();
    guest.is_generous = true;
    guest.give_buffers();
    // None of them is left.
    guest.expect_nothing(MOMENT);
    from_guest(&mut guest, &directory);
}

#[test]
fn clients_that_say_nothing_keep_nobody_waiting() {
    let (mut guest, directory) = running();
    let path = directory.path().join("v.sock");
    // More than the lobby accepts.
    let silent: Vec<_> = (0..300).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let _first = from_host(&mut guest, &directory);
    drop(silent);
    from_host(&mut guest, &directory);
}
