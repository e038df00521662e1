//! Data that was acknowledged to the guest, when the guest ends or a connection's peer reads too late.

mod guest;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use guest::{GATEWAY, Guest, PATIENCE, forward, pattern, settings};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

/// Less than the guest's window.
const PIECE: usize = 64 << 10;
/// Longer than Linux delays an acknowledgement (TCP_DELACK_MAX).
const DELAYED_ACK: Duration = Duration::from_millis(300);

/// A guest, its connection to `listener`, and the host's end of that.
fn connection(listener: &TcpListener) -> (Guest, SocketHandle, TcpStream) {
    // Inherited by the connection. Its other end's buffer grows with what this one takes.
    set_socket_recv_buffer_size(listener, 4096).unwrap();
    let mut guest = Guest::new(settings(&["host:*"]));
    let socket = guest.connected(format!("{GATEWAY}:{}", listener.local_addr().unwrap().port()));
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (guest, socket, stream)
}

/// Sends the piece of the guest's data that starts at `sent`, and waits until all is acknowledged.
fn send_piece(guest: &mut Guest, socket: SocketHandle, sent: usize) {
    guest.tcp(socket).send_slice(&pattern(sent + PIECE)[sent..]).unwrap();
    guest.until(|guest| (guest.tcp(socket).send_queue() == 0).then_some(()));
}

/// A guest, its connection, the host's end of that, and the number of bytes that the guest has sent: all were
/// acknowledged, the host has read nothing, and its kernel hasn't taken all.
fn unread() -> (Guest, SocketHandle, TcpStream, usize) {
    unread_at(&TcpListener::bind("127.0.0.1:0").unwrap())
}

fn unread_at(listener: &TcpListener) -> (Guest, SocketHandle, TcpStream, usize) {
    let (mut guest, socket, stream) = connection(listener);
    let mut sent = 0;
    while guest.deliver(Duration::ZERO).is_empty() {
        send_piece(&mut guest, socket, sent);
        sent += PIECE;
    }
    (guest, socket, stream, sent)
}

/// A guest, its connection, and the host's end of that, which has sent something that the guest hasn't taken. The
/// kernel has taken the piece that the guest has sent, but the host has read nothing, and has no room for all.
fn unread_both_ways() -> (Guest, SocketHandle, TcpStream) {
    let (mut guest, socket, mut stream) = connection(&TcpListener::bind("127.0.0.1:0").unwrap());
    send_piece(&mut guest, socket, 0);
    assert_eq!(guest.deliver(Duration::ZERO), []);
    stream.write_all(&[0; PIECE]).unwrap();
    (guest, socket, stream)
}

/// Reads as a server that sends all back.
fn echo_to_end(mut stream: TcpStream) -> thread::JoinHandle<(Vec<u8>, Option<ErrorKind>)> {
    thread::spawn(move || {
        let (mut bytes, mut piece) = (Vec::new(), [0; 1000]);
        loop {
            match stream.read(&mut piece) {
                Ok(0) => return (bytes, None),
                Ok(len) => {
                    bytes.extend(&piece[..len]);
                    // It fails when the connection has ended.
                    let _ = stream.write(&piece[..len]);
                }
                Err(error) => return (bytes, Some(error.kind())),
            }
        }
    })
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
    assert_eq!(guest.deliver(Duration::ZERO).len(), 1);
    let reader = read_to_end(stream);
    assert_eq!(guest.deliver(PATIENCE), []);
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
    let left = guest.deliver(Duration::from_millis(20));
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

/// Its kernel had taken all data, and drops what it hasn't sent if a socket is closed with unread input.
#[test]
fn data_for_a_program_that_has_sent_something_is_delivered() {
    let (guest, _, stream) = unread_both_ways();
    assert_is_delivered(guest, stream, PIECE);
}

#[test]
fn data_for_a_program_that_goes_on_sending_is_delivered() {
    let (mut guest, _, stream) = unread_both_ways();
    guest.net.forget_guest();
    let reader = echo_to_end(stream);
    assert_eq!(guest.deliver(PATIENCE), []);
    drop(guest);
    let (bytes, error) = reader.join().unwrap();
    assert_eq!(error, None);
    assert!(bytes == pattern(PIECE), "{} bytes", bytes.len());
}

#[test]
fn data_for_a_program_that_goes_on_sending_is_delivered_while_the_next_guest_runs() {
    let (mut guest, _, stream) = unread_both_ways();
    guest.restart();
    let reader = echo_to_end(stream);
    guest.until(|_| reader.is_finished().then_some(()));
    let (bytes, error) = reader.join().unwrap();
    assert_eq!(error, None);
    assert!(bytes == pattern(PIECE), "{} bytes", bytes.len());
}

#[test]
fn data_for_a_client_of_a_forwarded_port_that_has_sent_something_is_delivered() {
    let mut guest = Guest::new(forward(settings(&[]), "127.82.0.31:4100:80"));
    let socket = guest.listen(80);
    let client = thread::spawn(|| {
        let mut stream = TcpStream::connect("127.82.0.31:4100").unwrap();
        set_socket_recv_buffer_size(&stream, 4096).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[0; PIECE]).unwrap();
        stream
    });
    guest.until(|guest| client.is_finished().then_some(()).filter(|()| guest.tcp(socket).may_send()));
    send_piece(&mut guest, socket, 0);
    let mut stream = client.join().unwrap();
    stream.write_all(&[0; PIECE]).unwrap();
    assert_is_delivered(guest, stream, PIECE);
}

/// Neither the kernel's nor ours.
#[test]
fn data_that_nobody_reads_is_counted_to_the_byte() {
    let (mut guest, _, stream, sent) = unread();
    guest.net.forget_guest();
    let left = guest.deliver(DELAYED_ACK);
    drop(guest);
    let (bytes, error) = read_to_end(stream).join().unwrap();
    assert_eq!(error, Some(ErrorKind::ConnectionReset));
    assert_eq!(left.iter().map(|left| left.len + left.sent_len).sum::<usize>(), sent - bytes.len());
}

/// Its program reads it after the monitor has given up.
#[test]
fn data_that_the_kernel_has_taken_is_left_to_it() {
    let (mut guest, _, stream) = unread_both_ways();
    guest.net.forget_guest();
    let left = guest.deliver(Duration::from_millis(20));
    assert_eq!(left.iter().map(|left| left.len).sum::<usize>(), 0);
    let sent_len: usize = left.iter().map(|left| left.sent_len).sum();
    assert!(sent_len > 0 && sent_len <= PIECE, "{left:?}");
    drop(guest);
    let (bytes, error) = read_to_end(stream).join().unwrap();
    assert_eq!(error, None);
    assert!(bytes == pattern(PIECE), "{} bytes", bytes.len());
}

/// The host has ended too, so no input can come any more: the rest is left to the kernel.
#[test]
fn data_for_a_program_that_sends_no_more_is_not_waited_for() {
    let (mut guest, _, stream) = unread_both_ways();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    guest.net.forget_guest();
    assert_eq!(guest.deliver(Duration::ZERO), []);
    drop(guest);
    let (bytes, error) = read_to_end(stream).join().unwrap();
    assert_eq!(error, None);
    assert!(bytes == pattern(PIECE), "{} bytes", bytes.len());
}

#[test]
fn connection_of_the_next_guest_with_the_same_ports_is_another_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut guest, _, old, sent) = unread_at(&listener);
    let before = old.peer_addr().unwrap();
    guest.restart();
    let socket = guest.connected(format!("{GATEWAY}:{}", listener.local_addr().unwrap().port()));
    let (mut new, _) = listener.accept().unwrap();
    assert_ne!(new.peer_addr().unwrap(), before);
    new.write_all(b"for the next").unwrap();
    guest.expect(socket, b"for the next");
    let reader = read_to_end(old);
    guest.until(|_| reader.is_finished().then_some(()));
    let (bytes, error) = reader.join().unwrap();
    assert_eq!(error, None);
    assert!(bytes == pattern(sent), "{} of {sent} bytes", bytes.len());
    // The new one has outlived it.
    new.write_all(b" guest").unwrap();
    guest.expect(socket, b" guest");
}

#[test]
fn connection_with_the_ports_of_one_that_has_ended_is_another_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut guest, socket, old, sent) = unread_at(&listener);
    old.shutdown(std::net::Shutdown::Write).unwrap();
    guest.until(|guest| (guest.tcp(socket).state() == State::CloseWait).then_some(()));
    guest.tcp(socket).close();
    guest.until(|guest| (guest.tcp(socket).state() == State::Closed).then_some(()));
    guest.forget_sockets();
    guest.connected(format!("{GATEWAY}:{}", listener.local_addr().unwrap().port()));
    let reader = read_to_end(old);
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
    assert_eq!(guest.deliver(PATIENCE), []);
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
