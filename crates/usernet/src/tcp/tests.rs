//! Connections that are parked, and ones that end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use crate::flow::NetworkFlow;
use crate::guest::{GATEWAY, Guest, pattern, settings};
use crate::settings::Settings;

/// A guest with a parked connection that has carried data both ways, and the host's end of it.
fn parked() -> (Guest, SocketHandle, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut guest = Guest::new(settings(&["host:*"]));
    guest.net.shared.quiet = Duration::from_millis(5);
    let socket = guest.connected(format!("{GATEWAY}:{}", listener.local_addr().unwrap().port()));
    let (mut stream, _) = listener.accept().unwrap();
    guest.tcp(socket).send_slice(b"before").unwrap();
    guest.turn();
    stream.read_exact(&mut [0; 6]).unwrap();
    stream.write_all(&pattern(100_000)).unwrap();
    guest.expect(socket, &pattern(100_000));
    until_parked(&mut guest);
    (guest, socket, stream)
}

fn until_parked(guest: &mut Guest) {
    let is_parked = |flow: &NetworkFlow| matches!(flow, NetworkFlow::Tcp(tcp) if tcp.is_parked());
    guest.until(|guest| guest.net.table.flows().all(is_parked).then_some(()));
}

#[test]
fn connection_parked_goes_on_with_guests_bytes() {
    let (mut guest, socket, mut stream) = parked();
    guest.tcp(socket).send_slice(b"after").unwrap();
    guest.turn();
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"after");
}

#[test]
fn connection_parked_goes_on_with_hosts_bytes() {
    let (mut guest, socket, mut stream) = parked();
    stream.write_all(b"after").unwrap();
    guest.expect(socket, b"after");
}

/// More than both buffers hold, so that acknowledgements and windows matter, and twice.
#[test]
fn connection_parked_twice_carries_mebibyte_both_ways() {
    let (mut guest, socket, mut stream) = parked();
    let data = pattern(1 << 20);
    for _ in 0..2 {
        let (mut reader, expected) = (stream.try_clone().unwrap(), data.clone());
        let host = std::thread::spawn(move || {
            let mut got = vec![0; expected.len()];
            reader.read_exact(&mut got).unwrap();
            assert!(got == expected);
            reader.write_all(&expected).unwrap();
        });
        let mut rest = &data[..];
        guest.until(|guest| {
            let sent = guest.tcp(socket).send_slice(rest).unwrap();
            rest = &rest[sent..];
            rest.is_empty().then_some(())
        });
        guest.expect(socket, &data);
        host.join().unwrap();
        until_parked(&mut guest);
    }
    stream.write_all(b"end").unwrap();
    guest.expect(socket, b"end");
}

#[test]
fn connection_parked_ends_with_host() {
    let (mut guest, socket, stream) = parked();
    drop(stream);
    guest.until(|guest| (guest.tcp(socket).state() == State::CloseWait).then_some(()));
    guest.tcp(socket).close();
    guest.until(|guest| (guest.tcp(socket).state() == State::Closed).then_some(()));
    assert_eq!(guest.net.table.flows().count(), 0);
}

#[test]
fn connection_parked_ends_with_guests_reset() {
    let (mut guest, socket, mut stream) = parked();
    guest.tcp(socket).abort();
    guest.turn();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(guest.net.table.flows().count(), 0);
}

/// The quiet time is an hour, and there are three times as many connections as may keep their sockets
/// that long.
#[test]
fn connections_in_a_crowd_keep_no_buffers_and_go_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut guest = Guest::new(settings(&["host:*"]));
    guest.net.shared.quiet = Duration::from_secs(3600);
    let to = format!("{GATEWAY}:{}", listener.local_addr().unwrap().port());
    let mut ends: Vec<_> =
        (0..96).map(|_| (guest.connected_small(&to), listener.accept().unwrap().0)).collect();
    guest.until(|guest| (guest.net.shared.stack.in_use() <= 32).then_some(()));
    for (index, (socket, stream)) in ends.iter_mut().enumerate() {
        let words = [b"to the host", &index.to_le_bytes()[..]].concat();
        guest.tcp(*socket).send_slice(&words).unwrap();
        guest.turn();
        let mut came = vec![0; words.len()];
        stream.read_exact(&mut came).unwrap();
        assert_eq!(came, words);
        stream.write_all(&words).unwrap();
        guest.expect(*socket, &words);
    }
    guest.until(|guest| (guest.net.shared.stack.in_use() <= 32).then_some(()));
}

#[test]
fn connection_ended_by_both_leaves_nothing() {
    let (mut guest, socket, mut stream) = parked();
    guest.tcp(socket).close();
    guest.turn();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    drop(stream);
    guest.until(|guest| (guest.tcp(socket).state() == State::TimeWait).then_some(()));
    guest.until(|guest| (guest.net.table.flows().count() == 0).then_some(()));
}

/// Both peers may have vanished silently; such connections would occupy the table forever.
#[test]
fn connection_parked_for_long_gives_way_when_table_is_full() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("{GATEWAY}:{}", listener.local_addr().unwrap().port());
    let mut guest = Guest::new(Settings { flows: 1, ..settings(&["host:*"]) });
    guest.net.shared.quiet = Duration::from_millis(5);
    guest.connected(&address);
    let (mut first, _) = listener.accept().unwrap();
    until_parked(&mut guest);
    let refused = guest.connect(&address);
    guest.until(|guest| (guest.tcp(refused).state() == State::Closed).then_some(()));
    guest.net.long_quiet = Duration::from_millis(5);
    guest.connected(&address);
    assert_eq!(first.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn connection_to_host_that_is_gone_is_noticed() {
    let (guest, _, _stream) = parked();
    let is_probed = |flow: &NetworkFlow| {
        let NetworkFlow::Tcp(tcp) = flow else { return false };
        sockopt::socket_keepalive(tcp.host()).unwrap()
    };
    assert!(guest.net.table.flows().all(is_probed));
}
