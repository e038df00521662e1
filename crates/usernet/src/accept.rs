//! What comes in at the forwarded ports.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustix::io::Errno;

use crate::addresses::{GATEWAY_V4, GUEST_V4};
use crate::allow::Protocol;
use crate::flow::{Flow, Key, Pulled};
use crate::link::HEADER_LEN;
use crate::packet::{datagram_header_len, write_datagram};
use crate::table::Token;
use crate::tcp::Tcp;
use crate::udp::Visitor;
use crate::usernet::{UserNet, retry_at};

/// The first of the ports that connections into the guest appear to come from (RFC 6335 §6, dynamic ports).
const FIRST_PORT: u16 = 49152;

impl UserNet {
    /// Takes one connection or datagram at a forwarded port.
    pub(crate) fn pull_listener(&mut self, number: usize, into: &mut [u8]) -> Pulled {
        let Some(listener) = self.listeners.get(number) else { return Pulled::Idle(None) };
        if !listener.readable {
            return Pulled::Idle(None);
        }
        match listener.protocol {
            Protocol::Tcp => self.accept(number),
            _ => self.receive_datagram(number, into),
        }
    }

    fn accept(&mut self, number: usize) -> Pulled {
        // Whoever ends a flow gives the listener another turn: until then connections wait in the host.
        if self.accepted >= self.table.share() || !self.make_room() {
            return Pulled::Idle(None);
        }
        let listener = &mut self.listeners[number];
        let guest_port = listener.guest_port;
        let socket = match listener.accept() {
            Ok(socket) => socket,
            Err(Errno::AGAIN) => return Pulled::Idle(None),
            // No descriptors: somebody else may give some back, which nothing tells us.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                return Pulled::Idle(Some(retry_at()));
            }
            // That connection failed before it was taken (accept(2)).
            Err(_) => return Pulled::Again,
        };
        let Some(key) = self.fresh_key(Protocol::Tcp, guest_port) else { return Pulled::Again };
        let accepted = Tcp::accepted(key.guest, key.remote, socket, self.patience, &mut self.shared);
        if let Some(tcp) = accepted
            && self.watch.add(tcp.host(), self.table.next_token()).is_ok()
        {
            self.table.insert(key, Flow::Tcp(Box::new(tcp)));
            self.accepted += 1;
        }
        Pulled::Again
    }

    fn receive_datagram(&mut self, number: usize, into: &mut [u8]) -> Pulled {
        let at = HEADER_LEN + datagram_header_len(GUEST_V4.into());
        let listener = &mut self.listeners[number];
        let Some((len, client)) = listener.receive(&mut into[at..HEADER_LEN + self.shared.mtu]) else {
            return Pulled::Again;
        };
        let Some(key) = self.visitor(number, client) else { return Pulled::Again };
        let frame = &mut into[..at + len];
        let may_complete = self.shared.may_complete_checksums;
        let checksum = write_datagram(&mut frame[HEADER_LEN..], key.remote, key.guest, may_complete);
        self.shared.link.seal(frame);
        Pulled::Frame(frame.len(), checksum)
    }

    /// The flow of a client of a forwarded UDP port. `None`: there is no room for a new one.
    fn visitor(&mut self, number: usize, client: SocketAddr) -> Option<Key> {
        if let Some(&token) = self.listeners[number].clients.get(&client)
            && let Some((key, Flow::Visitor(visitor))) = self.table.get_with_key(token)
        {
            visitor.age.used();
            return Some(key);
        }
        if !self.make_room() {
            return None;
        }
        let listener = &self.listeners[number];
        let (port, guest_port) = (Arc::clone(&listener.socket), listener.guest_port);
        let key = self.fresh_key(Protocol::Udp, guest_port)?;
        let token: Token = self.table.insert(key, Flow::Visitor(Visitor::new(number, port, client)));
        self.listeners[number].clients.insert(client, token);
        Some(key)
    }

    /// The addresses of a flow into the guest, from a port of the gateway's that no other has.
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
    use std::io::Read;
    use std::net::TcpStream;
    use std::time::Duration;

    use crate::guest::{Guest, forward, settings};

    /// No frame of the guest's comes: it gets the SYN, and says nothing.
    #[test]
    fn forward_to_silent_guest_is_reset() {
        // An address of this test alone, so that the port is free.
        let mut guest = Guest::new(forward(settings(&[]), "127.81.0.1:4100:80"));
        guest.net.patience = Duration::from_millis(20);
        let mut client = TcpStream::connect("127.81.0.1:4100").unwrap();
        guest.next_frame();
        while guest.net.table.flows().count() > 0 {
            guest.next_news();
        }
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}
