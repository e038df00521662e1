//! Connections of the guest's to servers on the host's loopback.

mod guest;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;

use guest::{GATEWAY, GATEWAY_V6, Guest, pattern, settings};
use smoltcp::socket::tcp::State;

/// A server of one connection, and its address in the guest's eyes.
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
