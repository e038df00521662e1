//! Echo requests to the outside, through Linux's unprivileged ICMP sockets.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, IpProtocol};

use crate::link::HEADER_LEN;
use crate::packet::{Packet, header_len, write_header};
use crate::pull_outcome::{Age, PullOutcome};
use crate::shared::Shared;
use crate::unreachable::{self, Reason};

/// How long an identifier is kept without a request or reply; ping sends one per second.
const IDLE: Duration = Duration::from_secs(30);

/// Length of type, code, checksum, identifier and sequence number (RFC 792, RFC 4443 §4.1).
const MESSAGE_HEADER_LEN: usize = 8;
const REQUEST_V4: u8 = 8;
const REQUEST_V6: u8 = 128;

/// The identifier, if the packet is an echo request.
pub(crate) fn identifier(packet: &Packet<'_>) -> Option<u16> {
    let kind = match packet.protocol {
        IpProtocol::Icmp => REQUEST_V4,
        _ => REQUEST_V6,
    };
    let &[is, 0, _, _, high, low, _, _, ..] = packet.payload else { return None };
    (is == kind).then_some(u16::from_be_bytes([high, low]))
}

/// Echo requests with one identifier to one destination.
#[derive(Debug)]
pub(crate) struct Ping {
    guest: IpAddr,
    identifier: u16,
    remote: IpAddr,
    host: OwnedFd,
    readable: bool,
    pub(crate) age: Age,
}

impl Ping {
    pub(crate) fn new(guest: SocketAddr, remote: IpAddr, host: OwnedFd) -> Self {
        let identifier = guest.port();
        Self { guest: guest.ip(), identifier, remote, host, readable: false, age: Age::new(IDLE) }
    }

    pub(crate) fn host(&self) -> &OwnedFd {
        &self.host
    }

    pub(crate) fn handle_events(&mut self) {
        self.readable = true;
    }

    /// Handles a request from the guest. The kernel sets its own identifier and checksum.
    pub(crate) fn request(&mut self, packet: &Packet<'_>, shared: &mut Shared) {
        if identifier(packet).is_none() {
            return;
        }
        self.age.used();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::send(&self.host, packet.payload, flags) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::MSGSIZE) => {}
            Err(error) => shared.unreachable(packet, Reason::of(error)),
        }
    }

    pub(crate) fn pull(&mut self, into: &mut [u8], shared: &mut Shared) -> PullOutcome {
        if !self.readable {
            return self.age.idle();
        }
        let at = HEADER_LEN + header_len(self.guest);
        let room = &mut into[at..HEADER_LEN + shared.mtu];
        match rustix::net::recv(&self.host, &mut *room, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((_, len)) if len > room.len() || len < MESSAGE_HEADER_LEN => PullOutcome::Again,
            Ok((_, len)) => {
                self.age.used();
                let frame = &mut into[..at + len];
                self.finish(&mut frame[HEADER_LEN..], len);
                shared.link.seal(frame);
                PullOutcome::Frame(frame.len(), None)
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                self.age.idle()
            }
            Err(Errno::INTR) => PullOutcome::Again,
            Err(error) => {
                self.failed(error, shared);
                PullOutcome::Again
            }
        }
    }

    /// Turns the message of `len` bytes at the end of `packet` into a packet for the guest.
    fn finish(&self, packet: &mut [u8], len: usize) {
        match (self.remote, self.guest) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let at = write_header(packet, self.remote, self.guest, IpProtocol::Icmp, len);
                let mut message = Icmpv4Packet::new_unchecked(&mut packet[at..]);
                message.set_echo_ident(self.identifier);
                message.fill_checksum();
            }
            (IpAddr::V6(remote), IpAddr::V6(guest)) => {
                let at = write_header(packet, self.remote, self.guest, IpProtocol::Icmpv6, len);
                let mut message = Icmpv6Packet::new_unchecked(&mut packet[at..]);
                message.set_echo_ident(self.identifier);
                message.fill_checksum(&remote, &guest);
            }
            _ => {}
        }
    }

    fn failed(&self, error: Errno, shared: &mut Shared) {
        let (protocol, kind) = match self.guest {
            IpAddr::V4(_) => (IpProtocol::Icmp, REQUEST_V4),
            IpAddr::V6(_) => (IpProtocol::Icmpv6, REQUEST_V6),
        };
        let [high, low] = self.identifier.to_be_bytes();
        let ends = (SocketAddr::new(self.guest, 0), SocketAddr::new(self.remote, 0));
        let first = [kind, 0, 0, 0, high, low, 0, 0];
        unreachable::write_for(&mut shared.frame, &shared.link, ends, protocol, first, Reason::of(error));
        shared.control.push(&shared.frame);
    }
}
