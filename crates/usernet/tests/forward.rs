//! Forwarded ports. Each test has a loopback address of its own.

mod guest;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;

use guest::{Guest, forward, settings};
use smoltcp::socket::tcp::State;
use vmm_usernet::UserNet;

#[test]
fn forward_connects_client_with_guest() {
    let mut guest = Guest::new(forward(settings(&[]), "127.82.0.1:4100:80"));
    let socket = guest.listen(80);
    let client = thread::spawn(|| {
        let mut stream = TcpStream::connect("127.82.0.1:4100").unwrap();
        stream.write_all(b"hello").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    guest.expect(socket, b"hello");
    guest.tcp(socket).send_slice(b"guest here").unwrap();
    guest.tcp(socket).close();
    guest.until(|guest| (guest.tcp(socket).state() != State::FinWait1).then_some(()));
    assert_eq!(client.join().unwrap(), "guest here");
}

#[test]
fn forward_refused_by_guest_resets_client() {
    let mut guest = Guest::new(forward(settings(&["host:1"]), "127.82.0.2:4100:80"));
    // If the guest's stack has yet to resolve the gateway's hardware address, it drops its reset.
    let known = guest.connect("10.0.2.2:1");
    guest.until(|guest| (guest.tcp(known).state() == State::Closed).then_some(()));
    let client = thread::spawn(|| TcpStream::connect("127.82.0.2:4100").unwrap().read(&mut [0; 1]));
    guest.until(|_| client.is_finished().then_some(()));
    assert_eq!(client.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Otherwise clients of the port could take the network from the guest.
#[test]
fn forward_clients_without_end_leave_room_for_guest() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("10.0.2.2:{}", server.local_addr().unwrap().port());
    let mut settings = forward(settings(&["host:*"]), "127.82.0.9:4100:80");
    settings.flows = 4;
    let mut guest = Guest::new(settings);
    let sockets = [(); 4].map(|()| guest.listen(80));
    let _clients = [(); 4].map(|()| TcpStream::connect("127.82.0.9:4100").unwrap());
    // Three of the four places.
    let connected =
        |guest: &mut Guest| sockets.iter().filter(|socket| guest.tcp(**socket).may_send()).count();
    guest.until(|guest| (connected(guest) == 3).then_some(()));
    guest.connected(address);
    assert_eq!(connected(&mut guest), 3);
    // The fourth waits in the host until one of the others ends.
    let ended = sockets.into_iter().find(|socket| guest.tcp(*socket).may_send()).unwrap();
    guest.tcp(ended).abort();
    guest.until(|guest| (connected(guest) == 3).then_some(()));
}

#[test]
fn forward_several_connections_at_once() {
    let mut guest = Guest::new(forward(settings(&[]), "127.82.0.3:4100:80"));
    let sockets = [guest.listen(80), guest.listen(80), guest.listen(80)];
    let clients: Vec<_> = (0..3_u8)
        .map(|number| {
            let mut stream = TcpStream::connect("127.82.0.3:4100").unwrap();
            stream.write_all(&[number]).unwrap();
            stream
        })
        .collect();
    let mut seen = Vec::new();
    guest.until(|guest| {
        for socket in sockets {
            if guest.tcp(socket).can_recv() {
                guest.tcp(socket).recv(|bytes| (bytes.len(), seen.extend_from_slice(bytes))).unwrap();
            }
        }
        (seen.len() == 3).then_some(())
    });
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
    drop(clients);
}

#[test]
fn forward_waits_for_room_in_the_table() {
    let mut one = forward(settings(&["host:*"]), "127.82.0.4:4100:80");
    one.flows = 1;
    let mut guest = Guest::new(one);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = guest.connected(format!("10.0.2.2:{}", listener.local_addr().unwrap().port()));
    let socket = guest.listen(80);
    let mut client = TcpStream::connect("127.82.0.4:4100").unwrap();
    client.write_all(b"let me in").unwrap();
    guest.turn();
    assert_eq!(guest.tcp(socket).state(), State::Listen);
    guest.tcp(taken).abort();
    guest.expect(socket, b"let me in");
}

#[test]
fn forward_udp_client_is_answered() {
    let mut guest = Guest::new(forward(settings(&[]), "udp:127.82.0.5:4100:53"));
    let socket = guest.udp_socket(53);
    let clients = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
    for (number, client) in clients.iter().enumerate() {
        client.send_to(&[number as u8], "127.82.0.5:4100").unwrap();
    }
    for _ in 0..2 {
        let (data, from) = guest.datagram(socket);
        guest.udp(socket).send_slice(&[data[0] + 10], from).unwrap();
    }
    guest.until(|guest| (guest.udp(socket).send_queue() == 0).then_some(()));
    for (number, client) in clients.iter().enumerate() {
        let mut answer = [0; 2];
        let (len, from) = client.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..len], from.to_string()), (&[number as u8 + 10][..], "127.82.0.5:4100".into()));
    }
}

#[test]
fn forward_port_in_use_is_an_error() {
    let _first = UserNet::open(forward(settings(&[]), "127.82.0.6:4100:80")).unwrap();
    let error = UserNet::open(forward(settings(&[]), "127.82.0.6:4100:81")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "forward \"127.82.0.6:4100:81\": can't listen at 127.82.0.6:4100: Address already in use (os error 98): \
         choose another port, or stop what listens there"
    );
}

#[test]
fn forward_of_foreign_address_is_an_error() {
    // TEST-NET-1 (RFC 5737), which no host has.
    let error = UserNet::open(forward(settings(&[]), "192.0.2.1:4100:80")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "forward \"192.0.2.1:4100:80\": can't listen at 192.0.2.1:4100: Cannot assign requested address (os error 99): \
         192.0.2.1 isn't an address of this host: choose one that is"
    );
}

#[test]
fn open_with_short_mtu_is_an_error() {
    let mut short = settings(&[]);
    short.mtu = 1279;
    let error = UserNet::open(short).unwrap_err();
    assert_eq!(error.to_string(), "an MTU of 1279 is less than IPv6 allows: make it 1280 or more");
}
