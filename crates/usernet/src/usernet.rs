//! The network: frames of the guest's to flows, flows to frames.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::allow::Allow;
use crate::flow::Flow;
use crate::host::News;
use crate::host::{TIMER, Watch};
use crate::link::{Carried, HEADER_LEN, Link};
use crate::listener::Listener;
use crate::packet::{Packet, PartialChecksum};
use crate::presence::{Presence, is_from_guest};
use crate::pulled::{End, Pulled};
use crate::refused::Refused;
use crate::routes::Routes;
use crate::services::{Answer, Services};
use crate::settings::{MIN_MTU, OpenError, Resolver, Settings};
use crate::shared::Shared;
use crate::table::{self, Table, Token};
use crate::tcp::QUIET;
use crate::tcp::stack::Stack;

/// Turns between two looks at the host's sockets, when there always is a flow with something to do.
const TURNS: u32 = 32;

/// Turns without a frame after which [`UserNet::receive`] returns to let its caller do something else.
const FRUITLESS_TURNS: u32 = 4096;

/// How soon something is tried again that failed, or that has to wait and isn't told of.
const RETRY: Duration = Duration::from_millis(50);

/// How long a guest has to answer a forwarded connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may be quiet and is sure of its place: what routers keep one for (RFC 5382 §5, REQ-5).
const LONG_QUIET: Duration = Duration::from_secs(124 * 60);

/// Time between two router advertisements. A guest takes the router out of its table after 18 hours without one and its
/// address after 24 (`services/ndp.rs`); some may be lost.
const ADVERTISEMENTS: Duration = Duration::from_secs(60 * 60);

/// A frame for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes.
    pub len: usize,
    /// What is left to the guest of the checksum, if it may be.
    pub checksum: Option<PartialChecksum>,
}

/// The network of one guest.
pub struct UserNet {
    pub(crate) allow: Allow,
    /// Where a rule asks what is near.
    pub(crate) routes: Option<Routes>,
    pub(crate) refused: Refused,
    pub(crate) resolver: Resolver,
    /// `PATIENCE`, but in tests.
    pub(crate) patience: Duration,
    /// `LONG_QUIET`, but in tests.
    pub(crate) long_quiet: Duration,
    pub(crate) services: Services,
    pub(crate) shared: Shared,
    pub(crate) table: Table,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) watch: Watch,
    /// Of the guest, for the forwarded ports.
    pub(crate) presence: Presence,
    /// The last port that a forwarded connection appeared to come from.
    pub(crate) last_port: u16,
    /// Connections that came in at forwarded ports.
    pub(crate) accepted: usize,
    turns: u32,
    news: Vec<News>,
    advertise_at: Instant,
}

impl UserNet {
    /// Opens the network and listens at the forwarded ports.
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
            // The standard library's hashers begin with random numbers of the kernel's.
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
            refused: Refused::default(),
            resolver: settings.resolver,
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
            news: Vec::new(),
            advertise_at: Instant::now() + ADVERTISEMENTS,
        })
    }

    /// Takes a frame of the guest's, whatever it is. TCP's and UDP's checksums aren't looked at.
    ///
    /// What there is to answer is then to be had from [`receive`](Self::receive).
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
            Some(Carried::V4(bytes)) => Packet::parse_v4(bytes),
            Some(Carried::V6(bytes)) => Packet::parse_v6(bytes),
            None => None,
        };
        if let Some(packet) = packet {
            self.route(&packet);
        }
    }

    /// Writes one frame for the guest to `into`, which has room for the MTU and 14 bytes; with less, nothing is written.
    ///
    /// `None`: there is nothing now, and the descriptor becomes readable when that may have changed.
    pub fn receive(&mut self, into: &mut [u8]) -> Option<Frame> {
        let into = into.get_mut(..HEADER_LEN + self.shared.mtu)?;
        let mut has_looked = false;
        for _ in 0..FRUITLESS_TURNS {
            if let Some(len) = self.shared.control.pop(into) {
                return Some(Frame { len, checksum: None });
            }
            self.turns += 1;
            if self.turns >= TURNS {
                self.look();
            }
            match self.table.next_ready() {
                Some(token) => {
                    if let Some(frame) = self.turn(token, into) {
                        return Some(frame);
                    }
                }
                None if has_looked => break,
                None => has_looked = self.look(),
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

    /// Says whether the guest completes TCP's and UDP's checksums itself (VIRTIO_NET_F_GUEST_CSUM).
    pub fn set_partial_checksums(&mut self, may: bool) {
        self.shared.may_complete_checksums = may;
    }

    /// Says whether the guest's driver runs. While it doesn't, nobody can take what comes in: forwarded TCP ports refuse
    /// connections, and what comes to UDP ports is dropped once the driver runs. A network is opened as if it did.
    pub fn set_driven(&mut self, is_driven: bool) {
        for listener in &mut self.listeners {
            listener.set_open(is_driven);
        }
        if !is_driven {
            self.presence = Presence::Unknown;
        }
    }

    /// What the log should be told next. There are few: each destination that the rules refuse is told once, and not all, and
    /// each forwarded port that is lost once.
    pub fn take_notice(&mut self) -> Option<String> {
        let lost = self.listeners.iter_mut().find_map(Listener::take_notice);
        lost.or_else(|| self.refused.take_notice())
    }

    /// How many flows and datagrams the rules have refused.
    pub fn refused(&self) -> u64 {
        self.refused.count()
    }

    /// Takes news of the host's sockets and the clock. Whether that was all.
    fn look(&mut self) -> bool {
        self.turns = 0;
        let mut all_news = std::mem::take(&mut self.news);
        self.watch.take(|news| all_news.push(news));
        let is_all = all_news.is_empty();
        for news in all_news.drain(..) {
            self.hear(news);
        }
        self.news = all_news;
        let now = Instant::now();
        self.table.wake(now);
        // A machine that stood still for hours gets one, not all that it missed.
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

    fn hear(&mut self, news: News) {
        if news.token == TIMER {
            return;
        }
        if let Some(number) = table::listener_number(news.token) {
            if let Some(listener) = self.listeners.get_mut(number) {
                listener.hear(news.readable);
            }
        } else {
            let Some(flow) = self.table.get(news.token) else { return };
            if let Err(end) = flow.news(news, &mut self.shared) {
                return self.end(news.token, end);
            }
        }
        self.table.make_ready(news.token);
    }

    /// Gives one flow or listener its turn.
    fn turn(&mut self, token: Token, into: &mut [u8]) -> Option<Frame> {
        let pulled = match table::listener_number(token) {
            Some(number) => self.pull_listener(number, into),
            None => self.table.get(token)?.pull(into, &mut self.shared),
        };
        match pulled {
            Pulled::Frame(len, checksum) => {
                self.table.make_ready(token);
                return Some(Frame { len, checksum });
            }
            Pulled::Again => self.table.make_ready(token),
            Pulled::Idle(Some(deadline)) => {
                // What is due and yet has nothing to say would otherwise be asked again and again.
                let soonest = Instant::now() + Duration::from_millis(1);
                self.table.wake_at(token, deadline.max(soonest));
            }
            Pulled::Idle(None) => {}
            Pulled::End(end) => self.end(token, end),
        }
        None
    }

    /// Ends a flow. A connection that waits for room in the table may now have it.
    pub(crate) fn end(&mut self, token: Token, how: End) {
        let Some(flow) = self.table.remove(token) else { return };
        match &flow {
            Flow::Visitor(visitor) => {
                if let Some(listener) = self.listeners.get_mut(visitor.listener) {
                    listener.clients.remove(&visitor.client);
                }
            }
            Flow::Tcp(tcp) => {
                self.accepted -= usize::from(tcp.is_accepted());
                // Its address may be gone: the next one asks for it.
                if tcp.is_unanswered() {
                    self.presence = Presence::Unknown;
                }
            }
            Flow::Udp(_) | Flow::Ping(_) => {}
        }
        flow.end(how, &mut self.shared);
        self.wake_listeners();
    }

    /// Gives the listeners a turn at which somebody waits.
    fn wake_listeners(&mut self) {
        for number in 0..self.listeners.len() {
            if self.listeners[number].readable {
                self.table.make_ready(table::listener(number));
            }
        }
    }

    /// Makes room for one more flow: whether there is any.
    pub(crate) fn make_room(&mut self) -> bool {
        if self.table.is_full()
            && let Some(token) = self.table.replaceable()
        {
            self.end(token, End::Orderly);
        }
        // One of which both ends may be gone; who isn't is told.
        if self.table.is_full()
            && let Some(before) = Instant::now().checked_sub(self.long_quiet)
            && let Some(token) = self.table.forgotten(before)
        {
            self.end(token, End::Reset);
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

/// Whether a packet can come from `address`.
pub(crate) fn can_be_source(address: IpAddr) -> bool {
    use crate::addresses::{can_be_destination, is_gateway, is_resolver};
    can_be_destination(address) && !address.is_loopback() && !is_gateway(address) && !is_resolver(address)
}

/// The retry of an accept that failed for want of descriptors.
pub(crate) fn retry_at() -> Instant {
    Instant::now() + RETRY
}

/// Both ends of what a packet belongs to.
pub(crate) fn ends(packet: &Packet<'_>, guest_port: u16, remote_port: u16) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(packet.from, guest_port), SocketAddr::new(packet.to, remote_port))
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    use super::*;
    use crate::guest::{GUEST_MAC, settings};

    /// Whether the descriptor becomes readable in `limit`.
    fn wakes_in(net: &UserNet, limit: Duration) -> bool {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        poll(&mut [PollFd::new(net, PollFlags::IN)], Some(&limit)).unwrap() == 1
    }

    /// Nobody asks, and nothing else happens.
    #[test]
    fn router_is_advertised_unasked_when_due() {
        let mut net = UserNet::open(settings(&[])).unwrap();
        let mut frame = vec![0; 70_000];
        net.advertise_at = Instant::now() + Duration::from_millis(20);
        assert_eq!(net.receive(&mut frame), None);
        // Far more than it takes.
        assert!(wakes_in(&net, Duration::from_secs(20)));
        net.receive(&mut frame).unwrap();
        // To the guest's hardware address and all nodes of its link, a message of type 134 (RFC 4861 §4.2).
        assert_eq!(frame[..6], GUEST_MAC);
        assert_eq!(frame[38..54], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(frame[54], 134);
        // One, and the next in an hour.
        assert_eq!(net.receive(&mut frame), None);
        let left = net.advertise_at.saturating_duration_since(Instant::now());
        assert!(left > ADVERTISEMENTS / 2 && left <= ADVERTISEMENTS, "{left:?}");
        assert!(!wakes_in(&net, Duration::ZERO));
    }
}
