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
//! A quiet connection releases its socket and buffers: the numbers in its [`SequenceState`] suffice to continue.

mod sequence;
pub(crate) mod stack;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use smoltcp::socket::tcp::State;
use smoltcp::wire::{IpProtocol, TcpPacket};

use crate::host::{self, SocketEvents};
use crate::link::HEADER_LEN;
use crate::packet::{LONGEST_BARE_SEGMENT, Packet, finish_checksum, header_len};
use crate::pull_outcome::{Closing, PullOutcome};
use crate::shared::Shared;
use crate::undelivered::UndeliveredTcp;
use crate::unreachable::{self, Reason};
use sequence::SequenceState;
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
    /// There is data of the guest that the host's socket hasn't taken, which is reset if it is closed now.
    has_undelivered: bool,
    /// The guest sends no more; the host has been told.
    guest_ended: bool,
    sent_end: bool,
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
            guest_ended: false,
            sent_end: false,
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
        // The host hasn't taken the last bytes yet: a new connection with the same addresses has to wait.
        if self.phase == Phase::Draining && segment.syn() {
            return Ok(());
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
            _ => {}
        }
        self.exchange();
        let Some(endpoint) = &mut self.endpoint else { return PullOutcome::End(Closing::Orderly) };
        if self.phase == Phase::Draining {
            return if endpoint.socket().can_recv() && !self.failed {
                PullOutcome::Idle(None)
            } else {
                PullOutcome::End(Closing::Orderly)
            };
        }
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
                return PullOutcome::Idle(None);
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

    /// Moves as much data as possible in both directions.
    fn exchange(&mut self) {
        let outcome = self.send_to_host().and_then(|()| self.receive_from_host());
        if outcome.is_err() && !self.failed {
            self.failed = true;
            if let Some(endpoint) = &mut self.endpoint {
                endpoint.socket_mut().abort();
            }
        }
    }

    /// The guest is gone. Returns whether data that was acknowledged to it remains to be delivered.
    pub(crate) fn forget_guest(&mut self) -> bool {
        self.guest_ended = true;
        self.phase = Phase::Draining;
        self.deliver().is_some()
    }

    /// Passes data that was acknowledged to the guest to the host, and returns what remains; `None` also if the
    /// host's side has failed.
    pub(crate) fn deliver(&mut self) -> Option<UndeliveredTcp> {
        self.failed |= self.send_to_host().is_err();
        let len = self.endpoint.as_ref().map_or(0, |endpoint| endpoint.socket().recv_queue());
        let Self { guest, remote, .. } = *self;
        (len > 0 && !self.failed).then_some(UndeliveredTcp { guest, remote, len })
    }

    fn send_to_host(&mut self) -> Result<(), Errno> {
        let Some(endpoint) = &mut self.endpoint else { return Ok(()) };
        let socket = endpoint.socket_mut();
        self.guest_ended |=
            matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        while self.writable && socket.can_recv() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let sent = socket.recv(|bytes| match rustix::net::send(&self.host, bytes, flags) {
                Ok(len) => (len, Ok(())),
                Err(error) => (0, Err(error)),
            });
            match sent {
                Ok(Err(Errno::AGAIN)) => self.writable = false,
                Ok(Err(Errno::INTR)) | Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        let has_undelivered = socket.can_recv();
        if has_undelivered != self.has_undelivered {
            self.has_undelivered = has_undelivered;
            // Even if the monitor is killed, the peer can't mistake what it has received for everything.
            host::close_by_reset(&self.host, has_undelivered);
        }
        if self.guest_ended && !self.sent_end && !has_undelivered {
            self.sent_end = true;
            // If it fails, the host's peer is gone, which reading will report.
            let _ = rustix::net::shutdown(&self.host, Shutdown::Write);
        }
        Ok(())
    }

    fn receive_from_host(&mut self) -> Result<(), Errno> {
        let Some(endpoint) = &mut self.endpoint else { return Ok(()) };
        let socket = endpoint.socket_mut();
        // The end of the host's data has been read, so reading won't report the reset that followed.
        if self.was_reset
            && matches!(socket.state(), State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck)
        {
            return Err(Errno::CONNRESET);
        }
        while self.readable && socket.can_send() {
            let received =
                socket.send(|room| match rustix::net::recv(&self.host, &mut *room, RecvFlags::DONTWAIT) {
                    Ok((len, _)) => (len, Ok((len, len < room.len()))),
                    Err(error) => (0, Err(error)),
                });
            match received {
                Ok(Ok((0, _))) => {
                    self.readable = false;
                    socket.close();
                }
                // A short read means that there is no more (epoll(7)), unless the end follows, which isn't
                // reported again.
                Ok(Ok((_, is_short))) => self.readable = !is_short || self.hung_up,
                Ok(Err(Errno::AGAIN)) => self.readable = false,
                Ok(Err(Errno::INTR)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
}
