//! Data that the guest regards as sent, after a connection has ended for the guest, however it ended.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tempfile::TempDir;
use vmm_virtio::testing::DEADLINE;
use vmm_virtio::{Undelivered, VirtioDevice};
use vmm_virtio_devices::vsock::packet::{Op, SHUT_BOTH, SHUT_SEND};

use super::guest::{Flow, Guest};
use super::{GUEST_PORT, HOST_PORT, MOMENT, counted, from_guest, from_host, read_all, running};

/// A connection whose host program has read nothing, and the number of bytes that the guest has sent: more
/// than the kernel has taken.
fn unread() -> (Guest, Flow, UnixStream, usize, TempDir) {
    let (mut guest, directory) = running();
    let (mut flow, socket) = from_guest(&mut guest, &directory);
    let sent = guest.send_what_there_is_room_for(&mut flow);
    (guest, flow, socket, sent, directory)
}

/// Delivers the last data of `device` to a program that begins to read now, and closes it.
fn deliver_and_read(mut device: Box<dyn VirtioDevice>, mut socket: UnixStream) -> Vec<u8> {
    let reader = std::thread::spawn(move || read_all(&mut socket));
    assert_eq!(device.deliver(DEADLINE), []);
    drop(device);
    reader.join().unwrap()
}

#[test]
fn data_sent_before_the_machine_ended_is_delivered() {
    let (guest, _, socket, sent, _directory) = unread();
    let mut device = guest.driver.into_device();
    assert_ne!(device.deliver(Duration::ZERO), [], "the kernel has taken all {sent} bytes");
    assert_eq!(deliver_and_read(device, socket), counted(sent));
}

#[test]
fn data_sent_before_the_machine_ended_is_delivered_from_a_half_closed_connection() {
    let (mut guest, flow, socket, sent, _directory) = unread();
    guest.send_shutdown(&flow, SHUT_SEND);
    guest.settle();
    assert_eq!(deliver_and_read(guest.driver.into_device(), socket), counted(sent));
}

#[test]
fn data_sent_before_the_machine_ended_is_delivered_from_a_closed_connection() {
    let (mut guest, flow, socket, sent, _directory) = unread();
    guest.send_shutdown(&flow, SHUT_BOTH);
    guest.send_op(&flow, Op::Rst);
    guest.settle();
    assert_eq!(deliver_and_read(guest.driver.into_device(), socket), counted(sent));
}

/// No driver follows, and the device stays where it is.
#[test]
fn data_sent_before_the_driver_reset_the_device_is_delivered_meanwhile() {
    let (mut guest, _, mut socket, sent, _directory) = unread();
    guest.driver.reset();
    assert_eq!(read_all(&mut socket), counted(sent));
}

/// Its line comes while the device delivers to another.
#[test]
fn client_that_sends_its_line_while_data_is_delivered_is_greeted_by_the_next_driver() {
    let (mut guest, _, _socket, _, directory) = unread();
    let mut client = UnixStream::connect(directory.path().join("v.sock")).unwrap();
    // The device accepts clients in order.
    let (_flow, _second) = from_host(&mut guest, &directory);
    guest.driver.reset();
    writeln!(client, "CONNECT {GUEST_PORT}").unwrap();
    // It delivers after each command.
    let act = || guest.driver.control().with_device(|_, _| ()).recv_timeout(DEADLINE).unwrap();
    act();
    act();
    guest.init();
    guest.accept();
}

/// Closing a Unix socket with unread input loses nothing of what was sent; only the end isn't a regular one.
#[test]
fn data_for_a_program_that_has_sent_something_is_delivered() {
    let (mut guest, directory) = running();
    guest.buf_alloc = 16;
    let (mut flow, mut socket) = from_guest(&mut guest, &directory);
    let sent = guest.send_what_there_is_room_for(&mut flow);
    // More than the guest has room for.
    socket.write_all(&[0; 100]).unwrap();
    let mut device = guest.driver.into_device();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let end = socket.read_to_end(&mut bytes);
        (bytes, end.map_err(|error| error.kind()))
    });
    assert_eq!(device.deliver(DEADLINE), []);
    drop(device);
    let (bytes, end) = reader.join().unwrap();
    assert_eq!(bytes, counted(sent));
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}

#[test]
fn data_that_no_program_reads_is_reported_when_the_time_is_up() {
    let (guest, flow, mut socket, sent, _directory) = unread();
    let mut device = guest.driver.into_device();
    let left = device.deliver(MOMENT);
    assert_eq!(device.deliver(Duration::ZERO), left);
    drop(device);
    let read = read_all(&mut socket);
    assert_eq!(read, counted(sent)[..read.len()]);
    let connection = format!("connection of guest port {} and host port {HOST_PORT}", flow.guest_port);
    assert_eq!(left, [Undelivered { connection, len: (sent - read.len()) as u64, sent_len: 0 }]);
}

#[test]
fn data_for_a_program_that_has_gone_is_not_waited_for() {
    let (guest, _, socket, _, _directory) = unread();
    let mut device = guest.driver.into_device();
    drop(socket);
    assert_eq!(device.deliver(DEADLINE), []);
}

#[test]
fn data_sent_before_a_reset_of_the_connection_is_delivered() {
    let (mut guest, flow, mut socket, sent, _directory) = unread();
    guest.send_op(&flow, Op::Rst);
    assert_eq!(read_all(&mut socket), counted(sent));
    // The ports were free at once.
    guest.send_op(&flow, Op::Rw);
    while guest.packet().0.op != Op::Rst as u16 {}
}

#[test]
fn data_sent_before_a_violation_of_the_protocol_is_delivered() {
    let (mut guest, flow, mut socket, sent, _directory) = unread();
    guest.send_op(&flow, Op::Response);
    assert_eq!(read_all(&mut socket), counted(sent));
}

#[test]
fn data_sent_before_an_unknown_operation_is_delivered() {
    let (mut guest, flow, mut socket, sent, _directory) = unread();
    let header = flow.header(Op::Rw);
    guest.send(&vmm_virtio_devices::vsock::packet::Header { op: 99, ..header }, &[]);
    assert_eq!(read_all(&mut socket), counted(sent));
}

/// The program, which doesn't know of the reset, may still write; nobody would read that.
#[test]
fn data_sent_before_the_driver_began_anew_is_delivered() {
    let (mut guest, _, mut socket, sent, _directory) = unread();
    guest.init();
    guest.give_buffers();
    assert_eq!(read_all(&mut socket), counted(sent));
    guest.expect_nothing(MOMENT);
}

#[test]
fn data_sent_before_a_restart_is_delivered_while_the_next_guest_runs() {
    let (guest, _, mut socket, sent, directory) = unread();
    let mut guest = Guest::new(guest.driver.into_device());
    let (mut flow, mut other) = from_guest(&mut guest, &directory);
    guest.send_data(&mut flow, b"next");
    assert_eq!(super::read(&mut other, 4), b"next");
    assert_eq!(read_all(&mut socket), counted(sent));
}
