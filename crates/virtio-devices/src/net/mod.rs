//! Network card (virtio 1.2 §5.1).
//!
//! ```text
//!  transmitq --> a chain is a frame ------------------------------------> link: a TAP's queue, a socket, a network
//!  receiveq  <-- 1 to n chains <-- a buffer of one frame, receive.rs <--- link, watched while there are chains
//!  controlq  --> how many pairs the driver uses, control.rs
//! ```
//!
//! With `vhost` the kernel serves the first two, see vhost.rs.
//!
//! Frames that can't be delivered are dropped and counted. Only one frame per pair is buffered here, so that
//! a flood stays in the kernel's queue, which drops it. A link is watched only while its driver has buffers,
//! so that a flood doesn't make the thread spin.

mod carrier;
mod config;
mod control;
mod link;
mod mac;
#[cfg(not(feature = "usernet"))]
mod no_user;
mod open;
mod pair;
mod passt;
mod properties;
mod receive;
mod receiver;
mod resolver;
mod sizes;
mod state;
mod stream;
mod transmit;
mod update;
#[cfg(feature = "usernet")]
mod user;
mod vhost;

use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use vmm_hostio::{RateLimiter, VHOST_CALLS};
use vmm_virtio::{
    Allow, Claim, ConfigSpace, DeviceError, Fault, Needs, Persistence, Session, Undelivered, VirtioDevice,
};

use self::carrier::Carrier;
use self::link::Link;
#[cfg(not(feature = "usernet"))]
use self::no_user as user;
use self::pair::Pair;
use self::properties::{F_MQ, NetProperties};
use self::receiver::Receiver;
use self::sizes::QUEUE_SIZE;
use self::vhost::Kernel;
use crate::timer::{TIMER_CALLS, Timer};

const CONTROL_SIZE: u16 = 64;
/// Token: the limiter has tokens again, or a link has more frames. Smaller tokens are the pairs' links.
const REFILLED: u32 = 1 << 16;
/// Token: the TAP may have gone up or down.
const CARRIER: u32 = REFILLED + 1;

/// The device.
pub struct Net {
    pairs: Vec<Pair>,
    /// Number of pairs that the driver uses, starting with the first.
    active: usize,
    properties: NetProperties,
    space: ConfigSpace,
    description: String,
    pace: Pace,
    /// Serves the pairs' queues instead of us.
    kernel: Option<Kernel>,
    /// The TAP whose state the link follows.
    carrier: Option<Carrier>,
    /// The user has set the link down: frames are dropped in both directions.
    is_unplugged: bool,
}

/// Rate limits, and the timer for the next attempt.
struct Pace {
    limiter: Option<RateLimiter>,
    refilled: Timer,
    is_refilling: bool,
    /// The timer's event occurs. The limits don't apply otherwise: nothing would retry, and ignoring a limit is better than a card
    /// that hangs.
    is_watched: bool,
}

impl Pace {
    /// Whether a frame may go now. If not, an event occurs when a retry is worthwhile.
    fn take(&mut self, len: u64) -> bool {
        let Some(limiter) = self.limiter.as_mut().filter(|_| self.is_watched) else { return true };
        let Err(wait) = limiter.take(len, Instant::now()) else { return true };
        // An earlier refusal may have set the timer already. If it can't be set, the limits don't apply.
        self.is_refilling = self.is_refilling || self.refilled.once(wait).is_ok();
        !self.is_refilling
    }

    /// Replaces the limits. Frames that wait are retried at once.
    fn limit(&mut self, limiter: Option<RateLimiter>) {
        self.limiter = limiter;
        if self.is_refilling {
            self.come_again();
        }
    }

    /// Triggers an event after pending ones.
    fn come_again(&self) {
        // It can't fail: the time is valid and the timer is ours.
        let _ = self.refilled.once(Duration::from_nanos(1));
    }
}

/// The TAP's state: news, and its flags.
const CARRIER_CALLS: &[Allow] = &[Allow::call(libc::SYS_recvfrom), Allow::call(libc::SYS_pread64)];

impl VirtioDevice for Net {
    fn needs(&self) -> Needs {
        let mut needs = Needs::calls(&[TIMER_CALLS, CARRIER_CALLS]);
        self.pairs.iter().for_each(|pair| needs.add(pair.link.needs()));
        if self.kernel.is_some() {
            needs.calls.push(VHOST_CALLS);
        }
        needs
    }

    fn features(&self) -> u64 {
        self.properties.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes = vec![QUEUE_SIZE; 2 * self.pairs.len()];
        sizes.extend((self.pairs.len() > 1).then_some(CONTROL_SIZE));
        sizes
    }

    fn config_space(&self) -> ConfigSpace {
        self.space.clone()
    }

    fn note(&self) -> Option<String> {
        Some(self.description.clone())
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::new("mac", "address", self.properties.mac.to_string())]
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.pace.is_refilling = false;
        self.pace.is_watched = session.watch(&self.pace.refilled, REFILLED).is_ok();
        if !self.pace.is_watched {
            // The host is out of memory.
            session.counters().errors.add(1);
        }
        if self.carrier.as_ref().is_some_and(|carrier| session.watch(carrier, CARRIER).is_err()) {
            session.counters().errors.add(1);
        }
        self.settle_link(session);
        self.pairs.iter_mut().for_each(|pair| pair.link.set_driven(true));
        if self.pairs[0].link.set_offloads(properties::offloads(session.features())).is_err() {
            session.counters().errors.add(1);
        }
        // A resumed device keeps its pairs: the driver sent the command earlier.
        let control = self.control_queue(session);
        let goes_on = control.and_then(|queue| session.queue(queue)).is_some_and(|queue| queue.has_begun());
        self.activate(if goes_on { self.active } else { 1 }, session);
        let lent = self.lend_to_kernel(session);
        self.unless_broken(lent, session)
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        let done = if self.control_queue(session) == Some(queue) {
            self.control(queue, session)
        } else if queue.is_multiple_of(2) {
            self.receive(queue / 2, session)
        } else {
            self.transmit(queue / 2, session)
        };
        self.unless_broken(done, session)
    }

    fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let done = match &mut self.kernel {
            Some(kernel) if token >= vhost::TOKENS => kernel.event(token, session),
            _ if token == REFILLED => self.refill(session),
            _ if token == CARRIER => {
                self.settle_link(session);
                Ok(())
            }
            _ => self.go_on(token as usize, session),
        };
        self.unless_broken(done, session)
    }

    fn stop(&mut self, session: &mut Session) {
        self.let_go(session);
        for (index, pair) in self.pairs.iter_mut().enumerate() {
            pair.receiver.give_up(index * 2, session);
            (pair.receive_waits, pair.transmit_waits) = (false, false);
        }
    }

    fn update(&mut self, fields: &Value, session: Option<&mut Session>) -> Result<(), DeviceError> {
        self.apply(fields, session)
    }

    fn report(&mut self) -> Map<String, Value> {
        let link = if self.is_up() { "up" } else { "down" };
        Map::from_iter([("link".to_owned(), link.into())])
    }

    fn reset(&mut self) {
        self.pairs.iter_mut().for_each(|pair| pair.link.set_driven(false));
    }

    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Own(self)
    }

    fn power_cycle(&mut self) {
        self.reset();
        self.pairs.iter_mut().for_each(|pair| pair.link.forget_guest());
        if let Some(kernel) = &mut self.kernel {
            kernel.forget_guest();
        }
    }

    fn deliver(&mut self, patience: Duration) -> Vec<Undelivered> {
        let until = Instant::now() + patience;
        let mut deliver =
            |pair: &mut Pair| pair.link.deliver(until.saturating_duration_since(Instant::now()));
        self.pairs.iter_mut().flat_map(&mut deliver).collect()
    }
}

impl Net {
    fn new(
        links: Vec<Box<dyn Link>>,
        properties: NetProperties,
        limiter: Option<RateLimiter>,
        description: String,
    ) -> Result<Self, DeviceError> {
        let refilled = Timer::new().map_err(|error| DeviceError::host("", error))?;
        let pairs = links.into_iter().map(|link| Pair {
            link,
            receiver: Receiver::new(),
            is_attached: true,
            wants_frames: false,
            refused: 0,
            is_watched: false,
            is_gone: false,
            transmit_waits: false,
            receive_waits: false,
        });
        Ok(Self {
            pairs: pairs.collect(),
            active: 1,
            properties,
            space: properties.space(),
            description,
            pace: Pace { limiter, refilled, is_refilling: false, is_watched: false },
            kernel: None,
            carrier: None,
            is_unplugged: false,
        })
    }

    /// After all pairs, or after the first one for a driver that uses only that (virtio 1.2 §5.1.2).
    fn control_queue(&self, session: &Session) -> Option<usize> {
        (self.pairs.len() > 1).then_some(2 * self.usable_pairs(session))
    }

    fn usable_pairs(&self, session: &Session) -> usize {
        if session.has_feature(F_MQ) { self.pairs.len() } else { 1 }
    }

    /// The driver now uses `count` pairs; the kernel distributes frames over the attached queues.
    fn activate(&mut self, count: usize, session: &mut Session) {
        self.active = count;
        for (index, pair) in self.pairs.iter_mut().enumerate() {
            let is_active = index < count;
            if !is_active {
                pair.unwatch(session);
                pair.receiver.give_up(index * 2, session);
            }
            if is_active != pair.is_attached {
                match pair.link.set_attached(is_active) {
                    Ok(()) => pair.is_attached = is_active,
                    Err(_) => session.counters().errors.add(1),
                }
            }
        }
    }

    /// Handles a ready descriptor of a link.
    fn go_on(&mut self, index: usize, session: &mut Session) -> Result<(), Fault> {
        let Some(pair) = self.pairs.get_mut(index) else { return Ok(()) };
        pair.link.go_on();
        pair.settle(index, session);
        self.receive(index, session)
    }

    fn refill(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.pace.refilled.acknowledge();
        self.pace.is_refilling = false;
        self.lend_to_kernel(session)?;
        // While the link is down we serve the queues that the kernel had.
        let is_released = self.is_unplugged && self.kernel.is_some();
        for index in 0..self.pairs.len() {
            if is_released {
                self.transmit(index, session)?;
                self.receive(index, session)?;
            }
            if std::mem::take(&mut self.pairs[index].transmit_waits) {
                self.transmit(index, session)?;
            }
            if std::mem::take(&mut self.pairs[index].receive_waits) {
                self.receive(index, session)?;
            }
        }
        Ok(())
    }

    /// Notifies the driver of the link state if it has changed.
    fn settle_link(&self, session: &Session) {
        if let Some(carrier) = &self.carrier {
            carrier.acknowledge();
        }
        if properties::set_link(&self.space, self.is_up()) {
            session.config_changed();
        }
    }

    /// Whether the link is up: the user hasn't set it down, and the host's end exists and is up.
    fn is_up(&self) -> bool {
        let has_carrier = self.carrier.as_ref().is_none_or(Carrier::is_up);
        !self.is_unplugged && has_carrier && !self.pairs.iter().any(|pair| pair.is_gone)
    }

    /// Lends the queues to the host's kernel, unless it has them or the user has set the link down.
    fn lend_to_kernel(&mut self, session: &mut Session) -> Result<(), Fault> {
        let usable = self.usable_pairs(session);
        match &mut self.kernel {
            Some(kernel) if !self.is_unplugged => kernel.start(&self.pairs[..usable], session),
            _ => Ok(()),
        }
    }

    /// Stops watching events after a fault.
    fn unless_broken(&mut self, done: Result<(), Fault>, session: &mut Session) -> Result<(), Fault> {
        if done.is_err() {
            self.let_go(session);
        }
        done
    }

    fn let_go(&mut self, session: &mut Session) {
        if let Some(kernel) = &mut self.kernel {
            kernel.stop(session);
        }
        // It fails if it wasn't watched.
        let _ = session.unwatch(&self.pace.refilled);
        if let Some(carrier) = &self.carrier {
            let _ = session.unwatch(carrier);
        }
        self.pairs.iter_mut().for_each(|pair| pair.unwatch(session));
    }
}
