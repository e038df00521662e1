//! UDP flows. Datagrams are never buffered here: they stay in the host's socket until the guest has room.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use smoltcp::wire::{IpProtocol, UdpPacket};

use crate::link::HEADER_LEN;
use crate::packet::{Packet, datagram_header_len, write_datagram};
use crate::pull_outcome::{Age, PullOutcome};
use crate::shared::Shared;
use crate::unreachable::{self, Reason};

/// How long a UDP flow lives without traffic, as routers do for UDP with replies. RFC 4787 asks for two
/// minutes, and permits less for a reason: here that the guest has only `Settings::flows` flows.
const IDLE: Duration = Duration::from_secs(60);
/// The same for DNS queries, which have one reply.
const IDLE_DNS: Duration = Duration::from_secs(10);
const DNS: u16 = 53;

/// Datagrams too long for the guest that are discarded before other flows get a turn.
const SKIPPED: usize = 16;

/// Datagrams between a socket of the guest and one destination.
#[derive(Debug)]
pub(crate) struct Udp {
    guest: SocketAddr,
    remote: SocketAddr,
    /// Connected, so that the host reports ICMP errors.
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

    pub(crate) fn handle_events(&mut self) {
        self.readable = true;
    }

    /// Sends a datagram from the guest. The host drops it if it has no room, as a router would.
    pub(crate) fn datagram(&mut self, packet: &Packet<'_>, shared: &mut Shared) {
        let Some(data) = data_of(packet) else { return };
        self.age.used();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // The error may be that of an earlier datagram: report it, and send this one.
        if let Err(error) = rustix::net::send(&self.host, data, flags) {
            self.failed(error, shared);
            if error == Errno::CONNREFUSED {
                let _ = rustix::net::send(&self.host, data, flags);
            }
        }
    }

    pub(crate) fn pull(&mut self, into: &mut [u8], shared: &mut Shared) -> PullOutcome {
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
                    return PullOutcome::Frame(frame.len(), checksum);
                }
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(error) => self.failed(error, shared),
            }
        }
        PullOutcome::Again
    }

    fn failed(&self, error: Errno, shared: &mut Shared) {
        report_error(self.guest, self.remote, error, shared);
    }
}

/// Tells the guest that the host failed to send its datagram to `remote`.
pub(crate) fn report_error(guest: SocketAddr, remote: SocketAddr, error: Errno, shared: &mut Shared) {
    // No room, or too long for the path: the datagram is lost.
    if matches!(error, Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM | Errno::MSGSIZE) {
        return;
    }
    let first = unreachable::datagram_start(guest, remote);
    let ends = (guest, remote);
    unreachable::write_for(&mut shared.frame, &shared.link, ends, IpProtocol::Udp, first, Reason::of(error));
    shared.control.push(&shared.frame);
}

/// Datagrams between a client of a forwarded port and the guest. The listener reads what the client sends.
#[derive(Debug)]
pub(crate) struct ForwardedUdp {
    /// Index of the listener.
    pub(crate) listener: usize,
    port: Arc<OwnedFd>,
    pub(crate) client: SocketAddr,
    pub(crate) age: Age,
}

impl ForwardedUdp {
    pub(crate) fn new(listener: usize, port: Arc<OwnedFd>, client: SocketAddr) -> Self {
        Self { listener, port, client, age: Age::new(IDLE) }
    }

    /// Sends the guest's reply to the client.
    pub(crate) fn datagram(&mut self, packet: &Packet<'_>) {
        let Some(data) = data_of(packet) else { return };
        self.age.used();
        // If the client is gone or has no room, the reply is lost.
        let _ =
            rustix::net::sendto(&self.port, data, SendFlags::NOSIGNAL | SendFlags::DONTWAIT, &self.client);
    }

    pub(crate) fn pull(&self) -> PullOutcome {
        self.age.idle()
    }
}

fn data_of<'a>(packet: &Packet<'a>) -> Option<&'a [u8]> {
    let datagram = UdpPacket::new_checked(packet.payload).ok()?;
    Some(datagram.payload())
}
