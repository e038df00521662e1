//! How connections end (virtio 1.2 §5.10.6.5).

use std::io::Write;
use std::net::Shutdown;

use vmm_virtio_devices::vsock::packet::{Op, SHUT_BOTH, SHUT_RECEIVE, SHUT_SEND};

use super::{MOMENT, counted, from_guest, from_host, read, read_all, running};

#[test]
fn guest_that_sends_no_more_still_receives() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    guest.send_data(&mut flow, b"the last");
    guest.send_shutdown(&flow, SHUT_SEND);
    assert_eq!(read_all(&mut client), b"the last");
    client.write_all(&counted(10_000)).unwrap();
    assert_eq!(guest.expect_data(&mut flow, 10_000), counted(10_000));
    drop(client);
    guest.expect_closed(&mut flow);
}

#[test]
fn host_that_sends_no_more_still_receives() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    client.write_all(b"the last").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.expect_data(&mut flow, 8), b"the last");
    let (header, _) = guest.expect(&mut flow, Op::Shutdown);
    assert_eq!(header.flags, SHUT_SEND);
    guest.send_data(&mut flow, &counted(60_000));
    assert_eq!(read(&mut client, 60_000), counted(60_000));
    // As Linux does when its program closes.
    guest.send_shutdown(&flow, SHUT_BOTH);
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(read_all(&mut client), b"");
}

#[test]
fn guest_that_closes_gets_its_answer_and_the_host_everything() {
    let (mut guest, directory) = running();
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    guest.send_data(&mut flow, &counted(5000));
    guest.send_shutdown(&flow, SHUT_BOTH);
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(read_all(&mut socket), counted(5000));
    // The connection is forgotten.
    guest.send_data(&mut flow, b"more");
    guest.expect(&mut flow, Op::Rst);
}

#[test]
fn guest_that_closes_before_the_host_has_read_waits_for_its_answer() {
    let (mut guest, directory) = running();
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    let sent = guest.send_what_there_is_room_for(&mut flow);
    guest.send_shutdown(&flow, SHUT_BOTH);
    guest.expect_nothing(MOMENT);
    assert_eq!(read_all(&mut socket), counted(sent));
    while guest.packet().0.op != Op::Rst as u16 {}
}

#[test]
fn guest_that_closes_and_does_not_wait_loses_nothing() {
    let (mut guest, directory) = running();
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    let sent = guest.send_what_there_is_room_for(&mut flow);
    guest.send_shutdown(&flow, SHUT_BOTH);
    guest.send_op(&flow, Op::Rst);
    guest.expect_nothing(MOMENT);
    // The ports are free again.
    guest.send_op(&flow, Op::Rw);
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(read_all(&mut socket), counted(sent));
}

#[test]
fn guest_that_resets_ends_it_for_the_host() {
    let (mut guest, directory) = running();
    let (flow, mut client) = from_host(&mut guest, &directory);
    guest.send_op(&flow, Op::Rst);
    assert_eq!(read_all(&mut client), b"");
    guest.expect_nothing(MOMENT);
}

#[test]
fn guest_that_receives_no_more_makes_the_hosts_write_fail() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    guest.send_shutdown(&flow, SHUT_RECEIVE);
    guest.settle();
    assert_eq!(client.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    guest.send_data(&mut flow, b"still");
    assert_eq!(read(&mut client, 5), b"still");
    guest.send_shutdown(&flow, SHUT_SEND);
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(read_all(&mut client), b"");
}

#[test]
fn guest_that_shuts_nothing_down_goes_on() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    guest.send_shutdown(&flow, 0);
    guest.send_shutdown(&flow, !SHUT_BOTH);
    guest.send_data(&mut flow, b"on");
    assert_eq!(read(&mut client, 2), b"on");
}

#[test]
fn guest_that_sends_behind_its_end_is_cut_off() {
    let (mut guest, directory) = running();
    let (mut flow, mut client) = from_host(&mut guest, &directory);
    guest.send_shutdown(&flow, SHUT_SEND);
    guest.send_data(&mut flow, b"x");
    guest.expect(&mut flow, Op::Rst);
    assert_eq!(read_all(&mut client), b"");
}

#[test]
fn host_that_closes_is_told_to_the_guest_which_may_answer() {
    let (mut guest, directory) = running();
    let (mut flow, client) = from_host(&mut guest, &directory);
    drop(client);
    guest.expect_closed(&mut flow);
    // Data in flight is dropped.
    guest.send_data(&mut flow, b"late");
    guest.send_op(&flow, Op::Rst);
    guest.expect_nothing(MOMENT);
    guest.send_op(&flow, Op::CreditRequest);
    guest.expect(&mut flow, Op::Rst);
}

#[test]
fn host_that_closes_with_something_unread_is_told_to_the_guest() {
    let (mut guest, directory) = running();
    let (mut flow, socket) = from_guest(&mut guest, &directory);
    guest.send_data(&mut flow, b"never read");
    guest.settle();
    drop(socket);
    guest.expect_closed(&mut flow);
}

#[test]
fn host_that_closes_behind_its_end_is_told_to_the_guest() {
    let (mut guest, directory) = running();
    let (mut flow, client) = from_host(&mut guest, &directory);
    client.shutdown(Shutdown::Write).unwrap();
    let (header, _) = guest.expect(&mut flow, Op::Shutdown);
    assert_eq!(header.flags, SHUT_SEND);
    drop(client);
    let (header, _) = guest.expect(&mut flow, Op::Shutdown);
    assert_eq!(header.flags, SHUT_BOTH);
}

#[test]
fn guest_that_receives_no_more_what_a_closed_host_left_is_told_the_end() {
    let (mut guest, directory) = running();
    guest.buf_alloc = 0;
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    socket.write_all(b"never read").unwrap();
    drop(socket);
    guest.expect(&mut flow, Op::CreditRequest);
    guest.send_shutdown(&flow, SHUT_RECEIVE);
    let (header, _) = guest.expect(&mut flow, Op::Shutdown);
    assert_eq!(header.flags, SHUT_BOTH);
}
