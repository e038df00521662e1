//! A TCP connection of the guest: a smoltcp socket towards the guest and a host socket towards the peer.
//!
//! ```text
//!   guest's SYN                host connects          handshake done          both have ended
//! ---------------> Connecting ---------------> Greeting ------------> Open ------------------> Draining ---> gone
//!                                  accepted ------^          quiet | ^ a segment, or data
//!                                                                  v |
//!                                                                Parked
//! ```
//!
//! While connecting there is no smoltcp socket, so that a refusal by the host becomes a refusal to the guest.
//! A connection that is draining exists on the host's side only: the guest may have another one with its addresses.
//! A quiet connection releases its socket and buffers: the numbers in its [`SequenceState`] suffice to continue.

mod exchange;
mod last_data;
mod open_tcp;
mod progress;
mod sequence;
pub(crate) mod stack;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt;
use smoltcp::socket::tcp::State;
use smoltcp::wire::{IpProtocol, TcpPacket};

use crate::host::SocketEvents;
use crate::link::HEADER_LEN;
use crate::packet::{LONGEST_BARE_SEGMENT, Packet, finish_checksum, header_len};
use crate::pull_outcome::{Closing, PullOutcome};
use crate::shared::Shared;
use crate::unreachable::{self, Reason};
pub use open_tcp::OpenTcp;
use sequence::SequenceState;
pub(crate) use sequence::reset_of;
use stack::Endpoint;

/// How long a quiet connection keeps its buffers.
pub(crate) const QUIET: Duration = Duration::from_secs(1);

/// How long the guest has to complete a handshake that it started.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct Tcp {
    guest: SocketAddr,
    remote: SocketAddr,
    host: OwnedFd,
    phase: Phase,
    endpoint: Option<Endpoint>,
    sequence: SequenceState,
    /// What the host's socket can do, as far as known: the kernel reports each change once.
    readable: bool,
    writable: bool,
    hung_up: bool,
    was_reset: bool,
    /// There is data of the guest to be delivered to the host: its socket is reset if it is closed now.
    has_undelivered: bool,
    /// Number of bytes that the host's socket has taken.
    written: u64,
    /// When the peer had all of them, after the guest ended.
    arrived_at: Option<Instant>,
    /// The guest sends no more; the host has been told.
    guest_ended: bool,
    sent_end: bool,
    /// The host sends no more, and all has been read.
    host_ended: bool,
    /// The host's side failed.
    failed: bool,
    active_at: Instant,
    /// The connection came in at a forwarded port.
    is_accepted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Greeting,
    Open,
    Parked,
    Draining,
}

impl Tcp {
    /// A connection that the guest requested with `syn`; `host` is connecting.
    pub(crate) fn connecting(
        guest: SocketAddr,
        remote: SocketAddr,
        host: OwnedFd,
        syn: &TcpPacket<&[u8]>,
    ) -> Self {
        let mut connection = Self::new(guest, remote, host, Phase::Connecting);
        connection.sequence.note_syn(syn);
        connection
    }

    /// A connection that the host accepted, to `guest`, shown as coming from `remote`. The guest has
    /// `patience` to answer. `None` if these addresses can't be connected.
    pub(crate) fn accepted(
        guest: SocketAddr,
        remote: SocketAddr,
        host: OwnedFd,
        patience: Duration,
        shared: &mut Shared,
    ) -> Option<Self> {
        let mut connection = Self::new(guest, remote, host, Phase::Greeting);
        let mut endpoint = shared.stack.endpoint();
        let socket = endpoint.socket_mut();
        socket.connect(shared.stack.context(), guest, remote).ok()?;
        socket.set_timeout(Some(patience.into()));
        connection.endpoint = Some(endpoint);
        connection.is_accepted = true;
        Some(connection)
    }

    fn new(guest: SocketAddr, remote: SocketAddr, host: OwnedFd, phase: Phase) -> Self {
        // If this fails, only small writes of the guest are slower.
        let _ = sockopt::set_tcp_nodelay(&host, true);
        // Detects peers that vanish silently: the guest's own keep-alive probes are answered here.
        let _ = sockopt::set_socket_keepalive(&host, true);
        Self {
            guest,
            remote,
            host,
            phase,
            endpoint: None,
            sequence: SequenceState::default(),
            readable: false,
            writable: false,
            hung_up: false,
            was_reset: false,
            has_undelivered: false,
            written: 0,
            arrived_at: None,
            guest_ended: false,
            sent_end: false,
            host_ended: false,
            failed: false,
            active_at: Instant::now(),
            is_accepted: false,
        }
    }

    pub(crate) fn host(&self) -> &OwnedFd {
        &self.host
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.is_accepted
    }

    /// What the guest regards as open. `None` during the handshake, which the guest continues or repeats, and once both sides have ended.
    pub(crate) fn open(&self) -> Option<OpenTcp> {
        let (next, wanted) = self.sequence.ends();
        let is_open = matches!(self.phase, Phase::Open | Phase::Parked);
        is_open.then_some(OpenTcp { guest: self.guest, remote: self.remote, next, wanted })
    }

    /// Whether it came in at a forwarded port and the guest hasn't answered.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.is_accepted && self.phase == Phase::Greeting
    }

    pub(crate) fn into_host(self, shared: &mut Shared) -> OwnedFd {
        if let Some(endpoint) = self.endpoint {
            shared.stack.give_back(endpoint);
        }
        self.host
    }

    /// When the last data passed, if the connection is parked.
    pub(crate) fn quiet_since(&self) -> Option<Instant> {
        (self.phase == Phase::Parked).then_some(self.active_at)
    }

    /// Whether it has released its buffers.
    #[cfg(test)]
    pub(crate) fn is_parked(&self) -> bool {
        self.phase == Phase::Parked
    }

    /// Handles events of the host's socket.
    pub(crate) fn handle_events(&mut self, events: SocketEvents, shared: &mut Shared) -> Result<(), Closing> {
        self.readable |= events.readable;
        self.writable |= events.writable;
        self.hung_up |= events.hung_up;
        self.was_reset |= events.failed;
        if self.phase != Phase::Connecting || !events.writable {
            return Ok(());
        }
        match sockopt::socket_error(&self.host) {
            Ok(Ok(())) => {
                self.greet(shared);
                Ok(())
            }
            Ok(Err(error)) | Err(error) => {
                self.refuse(error, shared);
                Err(Closing::Orderly)
            }
        }
    }

    /// The host is connected: continue the guest's handshake.
    pub(crate) fn greet(&mut self, shared: &mut Shared) {
        let mut endpoint = self.listening(shared);
        let syn = self.sequence.syn(self.guest, self.remote);
        shared.stack.ingress(&mut endpoint, syn.packet(), &mut []);
        endpoint.socket_mut().set_timeout(Some(HANDSHAKE.into()));
        self.endpoint = Some(endpoint);
        self.phase = Phase::Greeting;
        self.writable = true;
    }

    /// The host couldn't connect: a refusal becomes a reset to the guest, any other error an ICMP message.
    pub(crate) fn refuse(&mut self, error: Errno, shared: &mut Shared) {
        // If the host is out of descriptors or memory, the guest sees a refusal.
        let is_reset = matches!(
            error,
            Errno::CONNREFUSED | Errno::CONNRESET | Errno::MFILE | Errno::NFILE | Errno::NOMEM
        );
        if is_reset {
            shared.refuse_segment(self.sequence.syn(self.guest, self.remote).packet());
        } else {
            let first = self.sequence.syn_start(self.guest, self.remote);
            let ends = (self.guest, self.remote);
            unreachable::write_for(
                &mut shared.frame,
                &shared.link,
                ends,
                IpProtocol::Tcp,
                first,
                Reason::of(error),
            );
            shared.control.push(&shared.frame);
        }
    }

    /// Handles a segment from the guest.
    pub(crate) fn segment(&mut self, packet: &Packet<'_>, shared: &mut Shared) -> Result<(), Closing> {
        let Ok(segment) = TcpPacket::new_checked(packet.payload) else { return Ok(()) };
        if self.phase == Phase::Connecting {
            return if segment.rst() { Err(Closing::Reset) } else { Ok(()) };
        }
        if self.phase == Phase::Parked {
            self.unpark(shared);
        }
        let Some(endpoint) = &mut self.endpoint else { return Ok(()) };
        if endpoint.socket().state() == State::SynSent {
            if segment.syn() {
                self.sequence.note_syn(&segment);
            }
        } else if !self.sequence.admits(&segment) {
            return Ok(());
        }
        self.active_at = Instant::now();
        let mut answer = [0; HEADER_LEN + LONGEST_BARE_SEGMENT];
        let shifted = self.sequence.received(
            packet.whole,
            packet.whole.len() - packet.payload.len(),
            &mut shared.scratch,
        );
        let whole = shifted.unwrap_or(packet.whole);
        let answered = shared.stack.ingress(endpoint, whole, &mut answer[HEADER_LEN..]);
        self.sequence.note_received(&segment);
        if let Some(len) = answered {
            let frame = &mut answer[..HEADER_LEN + len];
            self.sequence.send(&mut frame[HEADER_LEN + header_len(self.guest.ip())..]);
            finish_checksum(
                &mut frame[HEADER_LEN..],
                self.remote.ip(),
                self.guest.ip(),
                IpProtocol::Tcp,
                false,
            );
            shared.link.seal(frame);
            shared.control.push(frame);
        }
        let state = endpoint.socket().state();
        if segment.rst() && matches!(state, State::Closed | State::Listen) {
            return Err(Closing::Reset);
        }
        if self.phase == Phase::Greeting && !matches!(state, State::SynSent | State::SynReceived) {
            endpoint.socket_mut().set_timeout(None);
            self.phase = Phase::Open;
        }
        self.exchange();
        Ok(())
    }

    /// Writes the next frame for the guest to `into`.
    pub(crate) fn pull(&mut self, into: &mut [u8], shared: &mut Shared) -> PullOutcome {
        match self.phase {
            Phase::Connecting => return PullOutcome::Idle(None),
            Phase::Parked if !self.readable => return PullOutcome::Idle(None),
            Phase::Parked => self.unpark(shared),
            Phase::Draining => return self.drain(),
            _ => {}
        }
        self.exchange();
        let Some(endpoint) = &mut self.endpoint else { return PullOutcome::End(Closing::Orderly) };
        let room = &mut into[HEADER_LEN..];
        if let Some(len) = shared.stack.egress(endpoint, room) {
            let packet = &mut into[HEADER_LEN..HEADER_LEN + len];
            self.sequence.send(&mut packet[header_len(self.guest.ip())..]);
            let may_complete = shared.may_complete_checksums;
            let checksum =
                finish_checksum(packet, self.remote.ip(), self.guest.ip(), IpProtocol::Tcp, may_complete);
            shared.link.seal(into);
            return PullOutcome::Frame(HEADER_LEN + len, checksum);
        }
        self.rest(shared)
    }

    /// The socket has nothing to send now.
    fn rest(&mut self, shared: &mut Shared) -> PullOutcome {
        let Some(endpoint) = &self.endpoint else { return PullOutcome::End(Closing::Orderly) };
        let socket = endpoint.socket();
        let is_closed = socket.state() == State::Closed && socket.remote_endpoint().is_none();
        // The link to the guest loses nothing that it has accepted, so there is no need to wait for late
        // segments.
        if is_closed || socket.state() == State::TimeWait {
            if self.guest_ended && socket.can_recv() && !self.failed {
                self.phase = Phase::Draining;
                return PullOutcome::Detach;
            }
            let is_orderly = self.guest_ended && !self.failed;
            return PullOutcome::End(if is_orderly { Closing::Orderly } else { Closing::Reset });
        }
        let turn = shared.stack.next_turn(endpoint);
        if turn.is_some() || !self.is_quiet() {
            return PullOutcome::Idle(turn);
        }
        let quiet_at = self.active_at + shared.quiet;
        if shared.stack.is_crowded() || quiet_at <= Instant::now() {
            self.park(shared);
            return PullOutcome::Idle(None);
        }
        PullOutcome::Idle(Some(quiet_at))
    }

    /// Whether all data has arrived in both directions, and neither side has ended.
    fn is_quiet(&self) -> bool {
        let Some(endpoint) = &self.endpoint else { return false };
        let socket = endpoint.socket();
        self.phase == Phase::Open
            && socket.state() == State::Established
            && socket.recv_queue() == 0
            && socket.send_queue() == 0
    }

    fn park(&mut self, shared: &mut Shared) {
        if let Some(endpoint) = self.endpoint.take() {
            shared.stack.give_back(endpoint);
            self.phase = Phase::Parked;
        }
    }

    /// Creates a socket that continues the connection, by a handshake that the guest doesn't see.
    fn unpark(&mut self, shared: &mut Shared) {
        let mut endpoint = self.listening(shared);
        let mut room = [0; LONGEST_BARE_SEGMENT];
        let syn = self.sequence.syn(self.guest, self.remote);
        shared.stack.ingress(&mut endpoint, syn.packet(), &mut []);
        if let Some(len) = shared.stack.egress(&mut endpoint, &mut room) {
            let greeting = sequence::segment_of(&room[..len], self.guest);
            let answer = self.sequence.resume(self.guest, self.remote, &greeting);
            shared.stack.ingress(&mut endpoint, answer.packet(), &mut []);
        }
        self.endpoint = Some(endpoint);
        self.phase = Phase::Open;
        self.active_at = Instant::now();
    }

    fn listening(&self, shared: &mut Shared) -> Endpoint {
        let mut endpoint = shared.stack.endpoint();
        // A closed socket can listen on any port but 0, and a SYN to port 0 has been refused.
        let _ = endpoint.socket_mut().listen(self.remote);
        endpoint
    }
}

#[cfg(test)]
mod tests;
