//! The network: passes frames from the guest to flows and from flows to the guest.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use vmm_sandbox::landlock::Ports;
use vmm_sandbox::{HostNetwork, Needs};

use crate::allow::Allow;
use crate::flow::NetworkFlow;
use crate::host::{self, SocketEvents, TIMER, Watch};
use crate::link::{HEADER_LEN, IpBytes, Link};
use crate::listener::Listener;
use crate::packet::{Packet, PartialChecksum};
use crate::presence::{Presence, is_from_guest};
use crate::pull_outcome::{Closing, PullOutcome};
use crate::refusal_log::RefusalLog;
use crate::routes::Routes;
use crate::services::{Answer, Services};
use crate::settings::{MIN_MTU, OpenError, Resolver, Settings};
use crate::shared::Shared;
use crate::system_calls::SYSTEM_CALLS;
use crate::table::{self, Table, Token};
use crate::tcp::stack::Stack;
use crate::tcp::{OpenTcp, QUIET};

/// Maximum number of turns between polls of the host's sockets while flows are busy.
const TURNS: u32 = 32;

/// Turns without a frame after which [`UserNet::receive`] returns, so that its caller can do other work.
const FRUITLESS_TURNS: u32 = 4096;

/// Interval for retrying what failed or waits without a notification.
pub(crate) const RETRY: Duration = Duration::from_millis(50);

/// How long a guest has to answer a forwarded connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a quiet connection is safe from replacement, as in routers (RFC 5382 §5, REQ-5).
const LONG_QUIET: Duration = Duration::from_secs(124 * 60);

/// Interval of router advertisements. A guest removes the router after 18 hours without one, and its address
/// after 24 (`services/ndp.rs`); some may be lost.
const ADVERTISEMENTS: Duration = Duration::from_secs(60 * 60);

/// A frame for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Length in bytes.
    pub len: usize,
    /// The checksum that the guest has to complete, if that is enabled.
    pub checksum: Option<PartialChecksum>,
}

/// The network of one guest.
pub struct UserNet {
    pub(crate) allow: Allow,
    /// The host's routes, if a rule needs them.
    pub(crate) routes: Option<Routes>,
    pub(crate) refused: RefusalLog,
    /// The server behind the resolver's address, if there is one.
    pub(crate) resolver: Option<SocketAddr>,
    /// `PATIENCE`, except in tests.
    pub(crate) patience: Duration,
    /// `LONG_QUIET`, except in tests.
    pub(crate) long_quiet: Duration,
    pub(crate) services: Services,
    pub(crate) shared: Shared,
    pub(crate) table: Table,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) watch: Watch,
    /// Whether the guest has its address, for forwarded ports.
    pub(crate) presence: Presence,
    /// The last gateway port used for a forwarded connection.
    pub(crate) last_port: u16,
    /// Number of connections from forwarded ports.
    pub(crate) accepted: usize,
    turns: u32,
    events: Vec<SocketEvents>,
    advertise_at: Instant,
    /// Connections that another network had, whose resets the guest hasn't taken.
    pub(crate) resets: VecDeque<OpenTcp>,
}

impl UserNet {
    /// Opens the network and listens at the forwarded ports.
    ///
    /// # Errors
    /// The MTU is less than 1280, a forwarded port can't be bound, or the host provides no netlink socket,
    /// epoll instance or timer.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        if settings.mtu < MIN_MTU {
            return Err(OpenError::Mtu(settings.mtu));
        }
        let mtu = usize::from(settings.mtu);
        let watch = Watch::new().map_err(|error| OpenError::Watch(error.into()))?;
        let routes = settings.allow.asks_what_is_near().then(Routes::open).transpose();
        let routes = routes.map_err(|error| OpenError::Routes(error.into()))?;
        let mut listeners = Vec::new();
        for forward in &settings.forwards {
            let listener = Listener::bind(forward).map_err(|error| OpenError::forward(forward, error))?;
            watch
                .add(&listener.socket, table::listener(listeners.len()))
                .map_err(|error| OpenError::Watch(error.into()))?;
            listeners.push(listener);
        }
        let shared = Shared {
            // The standard library seeds its hashers with random numbers from the kernel.
            stack: Stack::new(mtu, RandomState::new().build_hasher().finish()),
            control: Default::default(),
            link: Link::new(settings.guest_mac),
            mtu,
            quiet: QUIET,
            may_complete_checksums: false,
            frame: Vec::new(),
            scratch: Vec::new(),
        };
        Ok(Self {
            allow: settings.allow,
            routes,
            refused: RefusalLog::default(),
            resolver: match settings.resolver {
                Resolver::At(resolver) => Some(resolver),
                Resolver::OfHost => host::resolver(),
            },
            patience: PATIENCE,
            long_quiet: LONG_QUIET,
            services: Services::new(settings.mtu),
            shared,
            table: Table::new(settings.flows.max(1)),
            listeners,
            presence: Presence::Unknown,
            watch,
            last_port: u16::MAX,
            accepted: 0,
            turns: 0,
            events: Vec::new(),
            advertise_at: Instant::now() + ADVERTISEMENTS,
            resets: VecDeque::new(),
        })
    }

    /// What the network needs of the host after it was opened. A list of more than 1024 ports counts as all.
    pub fn needs(&self) -> Needs {
        let resolver = self.resolver.map(|resolver| resolver.port());
        let connect = self.allow.tcp_ports(resolver).map_or(Ports::Any, Ports::Only);
        let bind = Ports::Only(Vec::new());
        Needs { network: Some(HostNetwork { connect, bind }), ..Needs::calls(&[SYSTEM_CALLS]) }
    }

    /// Handles a frame from the guest, whatever it contains. TCP and UDP checksums aren't verified.
    ///
    /// Replies are then available from [`receive`](Self::receive).
    pub fn send(&mut self, frame: &[u8]) {
        if self.presence != Presence::There && is_from_guest(frame) {
            self.presence = Presence::There;
            self.wake_listeners();
        }
        match self.services.answer(frame, &mut self.shared.frame) {
            Answer::Reply => return self.shared.control.push(&self.shared.frame),
            Answer::Nothing => return,
            Answer::Released => return self.presence = Presence::Unknown,
            Answer::NotMine => {}
        }
        let packet = match self.shared.link.open(frame) {
            Some(IpBytes::V4(bytes)) => Packet::parse_v4(bytes),
            Some(IpBytes::V6(bytes)) => Packet::parse_v6(bytes),
            None => None,
        };
        if let Some(packet) = packet {
            self.route(&packet);
        }
    }

    /// Writes one frame for the guest to `into`, which must have room for the MTU plus 14 bytes; otherwise
    /// nothing is written.
    ///
    /// `None` if there is no frame now; the descriptor becomes readable when that may have changed.
    pub fn receive(&mut self, into: &mut [u8]) -> Option<Frame> {
        let into = into.get_mut(..HEADER_LEN + self.shared.mtu)?;
        let mut has_polled = false;
        for _ in 0..FRUITLESS_TURNS {
            if let Some(len) = self.next_reset(into).or_else(|| self.shared.control.pop(into)) {
                return Some(Frame { len, checksum: None });
            }
            self.turns += 1;
            if self.turns >= TURNS {
                self.poll_host();
            }
            match self.table.next_ready() {
                Some(token) => {
                    if let Some(frame) = self.turn(token, into) {
                        return Some(frame);
                    }
                }
                None if has_polled => break,
                None => has_polled = self.poll_host(),
            }
        }
        let now = Instant::now();
        let deadline = match self.table.next_deadline() {
            _ if self.table.has_ready() => now,
            Some(deadline) => deadline.min(self.advertise_at),
            None => self.advertise_at,
        };
        self.watch.wake_at(deadline, now);
        None
    }

    /// Sets whether the guest completes TCP and UDP checksums itself (VIRTIO_NET_F_GUEST_CSUM).
    pub fn set_partial_checksums(&mut self, may: bool) {
        self.shared.may_complete_checksums = may;
    }

    /// Sets whether the guest's driver is running. While it isn't, nothing can be delivered: forwarded TCP
    /// ports refuse connections, and datagrams to UDP ports are dropped once the driver runs. Initially it
    /// counts as running.
    pub fn set_driven(&mut self, is_driven: bool) {
        for listener in &mut self.listeners {
            listener.set_open(is_driven);
        }
        if !is_driven {
            self.presence = Presence::Unknown;
        }
    }

    /// The next message for the log. There are few: each destination that the rules refuse is logged once, up
    /// to a limit, and each forwarded port once if it is lost, and once if a connection has to wait for the
    /// host.
    pub fn take_notice(&mut self) -> Option<String> {
        let lost = self.listeners.iter_mut().find_map(Listener::take_notice);
        lost.or_else(|| self.refused.take_notice())
    }

    /// The next destination that the rules have refused for the first time, such as `tcp 192.0.2.7:80`. Each has its notice.
    pub fn take_refused(&mut self) -> Option<String> {
        self.refused.take_destination()
    }

    /// Number of flows and datagrams that the rules have refused.
    pub fn refused(&self) -> u64 {
        self.refused.count()
    }

    /// Handles events of host sockets and the timer. Returns whether there were none.
    pub(crate) fn poll_host(&mut self) -> bool {
        self.turns = 0;
        let mut pending = std::mem::take(&mut self.events);
        self.watch.take(|events| pending.push(events));
        let is_all = pending.is_empty();
        for events in pending.drain(..) {
            self.handle_events(events);
        }
        self.events = pending;
        let now = Instant::now();
        self.table.wake(now);
        // A machine that was stopped for hours sends one, not all that it missed.
        let is_due = self.advertise_at <= now;
        if is_due {
            self.advertise_at = now + ADVERTISEMENTS;
            self.advertise();
        }
        is_all && !is_due
    }

    fn advertise(&mut self) {
        let guest = self.shared.link.guest();
        if self.services.advertise(guest, &mut self.shared.frame) == Answer::Reply {
            self.shared.control.push(&self.shared.frame);
        }
    }

    fn handle_events(&mut self, events: SocketEvents) {
        if events.token == TIMER {
            return;
        }
        if let Some(number) = table::listener_number(events.token) {
            if let Some(listener) = self.listeners.get_mut(number) {
                listener.handle_events(events.readable);
            }
        } else {
            let Some(flow) = self.table.get(events.token) else { return };
            if let Err(end) = flow.handle_events(events, &mut self.shared) {
                return self.end(events.token, end);
            }
        }
        self.table.make_ready(events.token);
    }

    /// Gives a flow or listener its turn.
    fn turn(&mut self, token: Token, into: &mut [u8]) -> Option<Frame> {
        let pulled = match table::listener_number(token) {
            Some(number) => self.pull_listener(number, into),
            None => self.table.get(token)?.pull(into, &mut self.shared),
        };
        match pulled {
            PullOutcome::Frame(len, checksum) => {
                self.table.make_ready(token);
                return Some(Frame { len, checksum });
            }
            PullOutcome::Again => self.table.make_ready(token),
            PullOutcome::Idle(Some(deadline)) => {
                // Otherwise a flow that is due but has nothing to send would be asked in a busy loop.
                let soonest = Instant::now() + Duration::from_millis(1);
                self.table.wake_at(token, deadline.max(soonest));
            }
            PullOutcome::Idle(None) => {}
            PullOutcome::Detach => {
                self.table.detach(token);
                self.table.make_ready(token);
            }
            PullOutcome::End(end) => self.end(token, end),
        }
        None
    }

    /// Ends a flow. A connection waiting for room in the table may now get it.
    pub(crate) fn end(&mut self, token: Token, how: Closing) {
        let Some(flow) = self.table.remove(token) else { return };
        match &flow {
            NetworkFlow::ForwardedUdp(forwarded) => {
                if let Some(listener) = self.listeners.get_mut(forwarded.listener) {
                    listener.clients.remove(&forwarded.client);
                }
            }
            NetworkFlow::Tcp(tcp) => {
                self.accepted -= usize::from(tcp.is_accepted());
                // The guest may have lost its address: ask before the next connection.
                if tcp.is_unanswered() {
                    self.presence = Presence::Unknown;
                }
            }
            NetworkFlow::Udp(_) | NetworkFlow::Ping(_) => {}
        }
        flow.end(how, &mut self.shared);
        self.wake_listeners();
    }

    /// Gives a turn to listeners with waiting clients.
    fn wake_listeners(&mut self) {
        for number in 0..self.listeners.len() {
            if self.listeners[number].readable {
                self.table.make_ready(table::listener(number));
            }
        }
    }

    /// Makes room for one more flow; returns whether there is any.
    pub(crate) fn make_room(&mut self) -> bool {
        if self.table.is_full()
            && let Some(token) = self.table.replaceable()
        {
            self.end(token, Closing::Orderly);
        }
        // A connection whose two peers may both have vanished; one that hasn't gets a reset.
        if self.table.is_full()
            && let Some(before) = Instant::now().checked_sub(self.long_quiet)
            && let Some(token) = self.table.longest_quiet(before)
        {
            self.end(token, Closing::Reset);
        }
        !self.table.is_full()
    }
}

impl AsFd for UserNet {
    /// Readable when something has happened since [`UserNet::receive`] last returned `None`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl std::fmt::Debug for UserNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserNet").field("allow", &self.allow).finish_non_exhaustive()
    }
}

/// Whether `address` is valid as a source.
pub(crate) fn can_be_source(address: IpAddr) -> bool {
    use crate::addresses::{can_be_destination, is_gateway, is_resolver};
    can_be_destination(address) && !address.is_loopback() && !is_gateway(address) && !is_resolver(address)
}

/// When to retry an accept that failed for lack of descriptors.
pub(crate) fn retry_at() -> Instant {
    Instant::now() + RETRY
}

/// The guest's and the remote address of a packet.
pub(crate) fn ends(packet: &Packet<'_>, guest_port: u16, remote_port: u16) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(packet.from, guest_port), SocketAddr::new(packet.to, remote_port))
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    use super::*;
    use crate::guest::{GUEST_MAC, settings};

    /// Whether the descriptor becomes readable within `limit`.
    fn wakes_in(net: &UserNet, limit: Duration) -> bool {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        poll(&mut [PollFd::new(net, PollFlags::IN)], Some(&limit)).unwrap() == 1
    }

    /// The guest doesn't ask, and nothing else happens.
    #[test]
    fn router_is_advertised_unasked_when_due() {
        let mut net = UserNet::open(settings(&[])).unwrap();
        let mut frame = vec![0; 70_000];
        net.advertise_at = Instant::now() + Duration::from_millis(20);
        assert_eq!(net.receive(&mut frame), None);
        // Much more than it takes.
        assert!(wakes_in(&net, Duration::from_secs(20)));
        net.receive(&mut frame).unwrap();
        // To the guest's hardware address and all nodes of its link: message type 134 (RFC 4861 §4.2).
        assert_eq!(frame[..6], GUEST_MAC);
        assert_eq!(frame[38..54], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(frame[54], 134);
        // Only one; the next follows in an hour.
        assert_eq!(net.receive(&mut frame), None);
        let left = net.advertise_at.saturating_duration_since(Instant::now());
        assert!(left > ADVERTISEMENTS / 2 && left <= ADVERTISEMENTS, "{left:?}");
        assert!(!wakes_in(&net, Duration::ZERO));
    }
}
