//! Datagrams. None waits in the monitor: what is for the guest stays in the host's socket until the guest has room.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use smoltcp::wire::{IpProtocol, UdpPacket};

use crate::link::HEADER_LEN;
use crate::packet::{Packet, datagram_header_len, write_datagram};
use crate::pulled::{Age, Pulled};
use crate::shared::Shared;
use crate::unreachable::{self, Why};

/// How long a flow of datagrams lives without one: what routers take for UDP that was answered (RFC 4787 asks for two
/// minutes of those with few flows, and permits less for a reason: the guest has `Settings::flows` of them).
const IDLE: Duration = Duration::from_secs(60);
/// The same of a question to a resolver, which is answered once.
const IDLE_DNS: Duration = Duration::from_secs(10);
const DNS: u16 = 53;

/// Datagrams too long for the guest that are thrown away before another flow has its turn.
const SKIPPED: usize = 16;

/// Datagrams between one socket of the guest's and one destination.
#[derive(Debug)]
pub(crate) struct Udp {
    guest: SocketAddr,
    remote: SocketAddr,
    /// Connected, so that the host tells of ICMP errors.
    host: OwnedFd,
    readable: bool,
    pub(crate) age: Age,
}

impl Udp {
    pub(crate) fn new(guest: SocketAddr, remote: SocketAddr, host: OwnedFd) -> Self {
        let idle = if remote.port() == DNS { IDLE_DNS } else { IDLE };
        Self { guest, remote, host, readable: false, age: Age::new(idle) }
    }

    pub(crate) fn host(&self) -> &OwnedFd {
        &self.host
    }

    pub(crate) fn news(&mut self) {
        self.readable = true;
    }

    /// A datagram of the guest's. The host drops it if it has no room, as any router.
    pub(crate) fn datagram(&mut self, packet: &Packet<'_>, shared: &mut Shared) {
        let Some(data) = data_of(packet) else { return };
        self.age.used();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // An error may be that of the datagram before; it is told, and this one sent.
        if let Err(error) = rustix::net::send(&self.host, data, flags) {
            self.failed(error, shared);
            if error == Errno::CONNREFUSED {
                let _ = rustix::net::send(&self.host, data, flags);
            }
        }
    }

    pub(crate) fn pull(&mut self, into: &mut [u8], shared: &mut Shared) -> Pulled {
        let at = HEADER_LEN + datagram_header_len(self.guest.ip());
        for _ in 0..SKIPPED {
            if !self.readable {
                return self.age.idle();
            }
            let room = &mut into[at..HEADER_LEN + shared.mtu];
            match rustix::net::recv(&self.host, &mut *room, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((_, len)) if len > room.len() => {}
                Ok((_, len)) => {
                    self.age.used();
                    let frame = &mut into[..at + len];
                    let may_complete = shared.may_complete_checksums;
                    let checksum =
                        write_datagram(&mut frame[HEADER_LEN..], self.remote, self.guest, may_complete);
                    shared.link.seal(frame);
                    return Pulled::Frame(frame.len(), checksum);
                }
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(error) => self.failed(error, shared),
            }
        }
        Pulled::Again
    }

    fn failed(&self, error: Errno, shared: &mut Shared) {
        tell(self.guest, self.remote, error, shared);
    }
}

/// Tells the guest that the host failed to send its datagram to `remote`.
pub(crate) fn tell(guest: SocketAddr, remote: SocketAddr, error: Errno, shared: &mut Shared) {
    // No room, or too long for the way: datagrams get lost.
    if matches!(error, Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM | Errno::MSGSIZE) {
        return;
    }
    let first = unreachable::datagram_start(guest, remote);
    let ends = (guest, remote);
    unreachable::write_for(&mut shared.frame, &shared.link, ends, IpProtocol::Udp, first, Why::of(error));
    shared.control.push(&shared.frame);
}

/// Datagrams between one client of a forwarded port and the guest. What the client sends is read where the port is.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// The listener's number.
    pub(crate) listener: usize,
    port: Arc<OwnedFd>,
    pub(crate) client: SocketAddr,
    pub(crate) age: Age,
}

impl Visitor {
    pub(crate) fn new(listener: usize, port: Arc<OwnedFd>, client: SocketAddr) -> Self {
        Self { listener, port, client, age: Age::new(IDLE) }
    }

    /// An answer of the guest's.
    pub(crate) fn datagram(&mut self, packet: &Packet<'_>) {
        let Some(data) = data_of(packet) else { return };
        self.age.used();
        // A client that is gone, or has no room, has lost it.
        let _ =
            rustix::net::sendto(&self.port, data, SendFlags::NOSIGNAL | SendFlags::DONTWAIT, &self.client);
    }

    pub(crate) fn pull(&self) -> Pulled {
        self.age.idle()
    }
}

fn data_of<'a>(packet: &Packet<'a>) -> Option<&'a [u8]> {
    let datagram = UdpPacket::new_checked(packet.payload).ok()?;
    Some(datagram.payload())
}
