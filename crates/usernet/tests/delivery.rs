//! Data that was acknowledged to the guest, when the guest ends or a connection's peer reads too late.

mod guest;

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use guest::{GATEWAY, Guest, PATIENCE, pattern, settings};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

/// Less than the guest's window.
const PIECE: usize = 64 << 10;

/// A guest, its connection, the host's end of that, and the number of bytes that the guest has sent: all were
/// acknowledged, the host has read nothing, and its kernel hasn't taken all.
fn unread() -> (Guest, SocketHandle, TcpStream, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Inherited by the connection. Its other end's buffer grows with what this one takes.
    set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let mut guest = Guest::new(settings(&["host:*"]));
    let socket = guest.connected(format!("{GATEWAY}:{}", listener.local_addr().unwrap().port()));
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sent = 0;
    while guest.net.deliver(Duration::ZERO).is_empty() {
        guest.tcp(socket).send_slice(&pattern(sent + PIECE)[sent..]).unwrap();
        guest.until(|guest| (guest.tcp(socket).send_queue() == 0).then_some(()));
        sent += PIECE;
    }
    (guest, socket, stream, sent)
}

fn read_to_end(mut stream: TcpStream) -> thread::JoinHandle<(Vec<u8>, Option<ErrorKind>)> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes);
        (bytes, end.err().map(|error| error.kind()))
    })
}

/// Asserts that the host gets all bytes and a regular end after the guest has gone.
#[track_caller]
fn assert_is_delivered(mut guest: Guest, stream: TcpStream, sent: usize) {
    guest.net.forget_guest();
    assert_eq!(guest.net.deliver(Duration::ZERO).len(), 1);
    let reader = read_to_end(stream);
    assert_eq!(guest.net.deliver(PATIENCE), []);
    drop(guest);
    let (bytes, error) = reader.join().unwrap();
    assert_eq!(error, None);
    assert!(bytes == pattern(sent), "{} of {sent} bytes", bytes.len());
}

#[test]
fn data_acknowledged_before_the_guest_ended_is_delivered() {
    let (guest, _, stream, sent) = unread();
    assert_is_delivered(guest, stream, sent);
}

/// The end of the guest's data was acknowledged as well.
#[test]
fn data_of_a_connection_that_the_guest_has_ended_is_delivered() {
    let (mut guest, socket, stream, sent) = unread();
    guest.tcp(socket).close();
    guest.until(|guest| (guest.tcp(socket).state() == State::FinWait2).then_some(()));
    assert_is_delivered(guest, stream, sent);
}

#[test]
fn data_acknowledged_that_nobody_reads_ends_the_connection_by_a_reset() {
    let (mut guest, socket, stream, sent) = unread();
    let remote = guest.tcp(socket).remote_endpoint().unwrap();
    guest.net.forget_guest();
    let left = guest.net.deliver(Duration::from_millis(20));
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].remote.port(), remote.port);
    assert!(left[0].len > 0 && left[0].len < sent, "{left:?}");
    drop(guest);
    let (bytes, error) = read_to_end(stream).join().unwrap();
    assert_eq!(error, Some(ErrorKind::ConnectionReset));
    assert!(bytes == pattern(sent)[..bytes.len()]);
}

/// As if the monitor had been killed.
#[test]
fn data_acknowledged_is_not_cut_off_silently_by_a_monitor_that_vanishes() {
    let (guest, _, stream, _) = unread();
    drop(guest);
    let (_, error) = read_to_end(stream).join().unwrap();
    assert_eq!(error, Some(ErrorKind::ConnectionReset));
}

#[test]
fn data_acknowledged_before_a_restart_is_delivered_while_the_next_guest_runs() {
    let (mut guest, _, stream, sent) = unread();
    guest.net.forget_guest();
    let reader = read_to_end(stream);
    guest.until(|_| reader.is_finished().then_some(()));
    let (bytes, error) = reader.join().unwrap();
    assert_eq!(error, None);
    assert!(bytes == pattern(sent), "{} of {sent} bytes", bytes.len());
}

#[test]
fn data_for_a_peer_that_has_gone_is_not_waited_for() {
    let (mut guest, _, stream, _) = unread();
    guest.net.forget_guest();
    drop(stream);
    assert_eq!(guest.net.deliver(PATIENCE), []);
}

#[test]
fn connection_of_a_guest_that_is_gone_ends_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut guest = Guest::new(settings(&["host:*"]));
    guest.connected(format!("{GATEWAY}:{}", listener.local_addr().unwrap().port()));
    let (stream, _) = listener.accept().unwrap();
    guest.net.forget_guest();
    assert_eq!(read_to_end(stream).join().unwrap(), (vec![], None));
}
