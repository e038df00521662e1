//! Incoming connections and datagrams at forwarded ports.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use crate::addresses::{GATEWAY_V4, GUEST_V4};
use crate::allow::Protocol;
use crate::flow::{Key, NetworkFlow};
use crate::host;
use crate::link::HEADER_LEN;
use crate::listener::is_lack;
use crate::packet::{datagram_header_len, write_datagram};
use crate::presence::Treatment;
use crate::pull_outcome::PullOutcome;
use crate::services::Answer;
use crate::table::Token;
use crate::tcp::Tcp;
use crate::udp::ForwardedUdp;
use crate::usernet::{UserNet, retry_at};

/// First of the gateway's ports that connections into the guest appear to come from (RFC 6335 §6, dynamic
/// ports).
const FIRST_PORT: u16 = 49152;

impl UserNet {
    /// Accepts one connection or receives one datagram at a forwarded port.
    pub(crate) fn pull_listener(&mut self, number: usize, into: &mut [u8]) -> PullOutcome {
        let Some(listener) = self.listeners.get(number) else { return PullOutcome::Idle(None) };
        if !listener.readable {
            return PullOutcome::Idle(None);
        }
        // UDP has no way to refuse, so nothing is asked first.
        if listener.protocol != Protocol::Tcp {
            return self.receive_datagram(number, into);
        }
        match self.presence.treat(Instant::now()) {
            Treatment::Serve => self.accept(number),
            Treatment::Ask(until) => {
                if self.services.ask_for_guest(&mut self.shared.frame) == Answer::Reply {
                    self.shared.control.push(&self.shared.frame);
                }
                PullOutcome::Idle(Some(until))
            }
            Treatment::Wait(until) => PullOutcome::Idle(Some(until)),
            Treatment::Refuse => self.refuse_connection(number),
        }
    }

    /// Resets one connection, because the guest isn't there.
    fn refuse_connection(&mut self, number: usize) -> PullOutcome {
        match self.listeners[number].accept() {
            Ok(socket) => {
                host::reset(socket);
                PullOutcome::Again
            }
            Err(Errno::AGAIN | Errno::INVAL) => PullOutcome::Idle(None),
            Err(error) if is_lack(error) => PullOutcome::Idle(Some(retry_at())),
            Err(_) => PullOutcome::Again,
        }
    }

    fn accept(&mut self, number: usize) -> PullOutcome {
        // When a flow ends, the listener gets another turn. Until then connections wait in the host.
        if self.accepted >= self.table.share() || !self.make_room() {
            return PullOutcome::Idle(None);
        }
        let listener = &mut self.listeners[number];
        let guest_port = listener.guest_port;
        let socket = match listener.accept() {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INVAL) => return PullOutcome::Idle(None),
            // Out of descriptors: retry later, because nothing notifies us when others are closed.
            Err(error) if is_lack(error) => return PullOutcome::Idle(Some(retry_at())),
            // The connection failed before it was accepted (accept(2)).
            Err(_) => return PullOutcome::Again,
        };
        let Some(key) = self.fresh_key(Protocol::Tcp, guest_port) else { return PullOutcome::Again };
        let accepted = Tcp::accepted(key.guest, key.remote, socket, self.patience, &mut self.shared);
        if let Some(tcp) = accepted
            && self.watch.add(tcp.host(), self.table.next_token()).is_ok()
        {
            self.table.insert(key, NetworkFlow::Tcp(Box::new(tcp)));
            self.accepted += 1;
        }
        PullOutcome::Again
    }

    fn receive_datagram(&mut self, number: usize, into: &mut [u8]) -> PullOutcome {
        let at = HEADER_LEN + datagram_header_len(GUEST_V4.into());
        let listener = &mut self.listeners[number];
        let Some((len, client)) = listener.receive(&mut into[at..HEADER_LEN + self.shared.mtu]) else {
            return PullOutcome::Again;
        };
        let Some(key) = self.client_flow(number, client) else { return PullOutcome::Again };
        let frame = &mut into[..at + len];
        let may_complete = self.shared.may_complete_checksums;
        let checksum = write_datagram(&mut frame[HEADER_LEN..], key.remote, key.guest, may_complete);
        self.shared.link.seal(frame);
        PullOutcome::Frame(frame.len(), checksum)
    }

    /// The flow of a client of a forwarded UDP port. `None` if there is no room for a new one.
    fn client_flow(&mut self, number: usize, client: SocketAddr) -> Option<Key> {
        if let Some(&token) = self.listeners[number].clients.get(&client)
            && let Some((key, NetworkFlow::ForwardedUdp(forwarded))) = self.table.get_with_key(token)
        {
            forwarded.age.used();
            return Some(key);
        }
        if !self.make_room() {
            return None;
        }
        let listener = &self.listeners[number];
        let (port, guest_port) = (Arc::clone(&listener.socket), listener.guest_port);
        let key = self.fresh_key(Protocol::Udp, guest_port)?;
        let token: Token =
            self.table.insert(key, NetworkFlow::ForwardedUdp(ForwardedUdp::new(number, port, client)));
        self.listeners[number].clients.insert(client, token);
        Some(key)
    }

    /// The addresses of a new flow into the guest, from an unused port of the gateway.
    fn fresh_key(&mut self, protocol: Protocol, guest_port: u16) -> Option<Key> {
        let guest = SocketAddr::new(IpAddr::V4(GUEST_V4), guest_port);
        for _ in FIRST_PORT..=u16::MAX {
            self.last_port = self.last_port.checked_add(1).unwrap_or(FIRST_PORT);
            let remote = SocketAddr::new(IpAddr::V4(GATEWAY_V4), self.last_port);
            let key = Key { protocol, guest, remote };
            if self.table.find(&key).is_none() {
                return Some(key);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::TcpStream;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use crate::guest::{Guest, forward, settings};
    use crate::presence::Presence;
    use crate::usernet::RETRY;

    /// Much less than the guest's ten seconds to answer a connection, and than a SYN retransmission.
    const AT_ONCE: Duration = Duration::from_millis(900);

    /// An ARP reply from 10.0.2.15.
    fn reply() -> Vec<u8> {
        let mut reply = vec![0x52, 0x55, 0x0a, 0, 2, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56];
        reply.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15]);
        reply.extend([0x52, 0x55, 0x0a, 0, 2, 2, 10, 0, 2, 2]);
        reply
    }

    /// The guest has its address and gets the SYN, but doesn't respond.
    #[test]
    fn forward_to_silent_guest_is_reset() {
        // An address that only this test uses, so that the port is free.
        let mut guest = Guest::new(forward(settings(&[]), "127.81.0.1:4100:80"));
        guest.net.patience = Duration::from_millis(20);
        guest.net.send(&reply());
        let mut client = TcpStream::connect("127.81.0.1:4100").unwrap();
        guest.next_frame();
        while guest.net.table.flows().count() > 0 {
            guest.next_news();
        }
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        // The address may be gone, so the guest is asked before the next connection.
        assert_eq!(guest.net.presence, Presence::Unknown);
    }

    #[test]
    fn forward_to_guest_without_address_is_reset_at_once() {
        let mut guest = Guest::new(forward(settings(&[]), "127.81.0.2:4100:80"));
        let begun = Instant::now();
        let mut client = TcpStream::connect("127.81.0.2:4100").unwrap();
        // The broadcast ARP request for 10.0.2.15 (RFC 826).
        let question = guest.next_frame();
        assert_eq!(question[..6], [0xff; 6]);
        assert_eq!(question[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(question[38..42], [10, 0, 2, 15]);
        client.set_nonblocking(true).unwrap();
        while client.read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            guest.next_news();
        }
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        assert_eq!(guest.net.table.flows().count(), 0);
    }

    /// The guest hasn't sent anything before, like a guest with a static address that only serves.
    #[test]
    fn forward_to_guest_that_answers_who_it_is_is_connected() {
        let mut guest = Guest::new(forward(settings(&[]), "127.81.0.3:4100:80"));
        let _client = TcpStream::connect("127.81.0.3:4100").unwrap();
        guest.next_frame();
        guest.net.send(&reply());
        // A SYN to the guest's port 80, after the Ethernet and IPv4 headers.
        let syn = guest.next_frame();
        assert_eq!(syn[12..14], [8, 0]);
        assert_eq!(syn[36..38], [0, 80]);
        assert_eq!(syn[47], 0x02);
    }

    #[test]
    fn forward_without_driver_is_refused_by_the_host_itself_until_it_comes() {
        let mut guest = Guest::new(forward(settings(&[]), "127.81.0.4:4100:80"));
        let mut waiting = TcpStream::connect("127.81.0.4:4100").unwrap();
        guest.net.set_driven(false);
        assert_eq!(waiting.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let refused = TcpStream::connect("127.81.0.4:4100").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // The socket reports that it was closed, which requires no action.
        assert!(guest.receive().is_none());
        guest.net.set_driven(true);
        guest.net.send(&reply());
        let _client = TcpStream::connect("127.81.0.4:4100").unwrap();
        assert_eq!(guest.next_frame()[36..38], [0, 80]);
        assert_eq!(guest.net.take_notice(), None);
    }

    #[test]
    fn forward_lost_while_it_did_not_listen_is_told_once() {
        let mut guest = Guest::new(forward(settings(&[]), "127.81.0.5:4100:80"));
        guest.net.set_driven(false);
        let mut other = Guest::new(forward(settings(&[]), "127.81.0.5:4100:80"));
        guest.net.set_driven(true);
        assert_eq!(
            guest.net.take_notice().unwrap(),
            "forward \"127.81.0.5:4100:80\" has stopped working: can't listen: Address already in use (os error 98): \
             choose another port, or stop what listens there"
        );
        guest.net.set_driven(false);
        guest.net.set_driven(true);
        assert_eq!(guest.net.take_notice(), None);
        assert!(guest.receive().is_none());
        other.net.send(&reply());
        let _client = TcpStream::connect("127.81.0.5:4100").unwrap();
        assert_eq!(other.next_frame()[36..38], [0, 80]);
    }

    /// In a process of its own, whose limit of descriptors it changes.
    #[test]
    fn forward_that_lacks_descriptors_is_told_once_and_connected_when_there_are_some() {
        const CHILD: &str = "VMM_USERNET_TESTS_CHILD";
        if std::env::var_os(CHILD).is_none() {
            let name = "accept::tests::forward_that_lacks_descriptors_is_told_once_and_connected_when_there_are_some";
            let mut child = Command::new(std::env::current_exe().unwrap());
            let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            return;
        }
        let mut guest = Guest::new(forward(settings(&[]), "127.81.0.6:4100:80"));
        guest.net.send(&reply());
        let _client = TcpStream::connect("127.81.0.6:4100").unwrap();
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
        let mut notices = vec![];
        // The client's arrival, then some attempts.
        let until = Instant::now() + 5 * RETRY;
        while Instant::now() < until {
            guest.next_news();
            notices.extend(guest.net.take_notice());
        }
        assert_eq!(
            notices,
            ["forward \"127.81.0.6:4100:80\": can't accept a connection, which waits until it can be: \
              Too many open files (os error 24); raise the limit of open files (ulimit -n)"]
        );
        setrlimit(Resource::Nofile, limit).unwrap();
        assert_eq!(guest.next_frame()[36..38], [0, 80]);
    }
}
