//! vsock (virtio 1.2 §5.10): connections between guest and host programs without a network.
//!
//! ```text
//!  host's program --"CONNECT 52\n"--> path ------> Listener --> Lobby --+
//!                                                                       +--> Flows <--packets--> queues
//!  guest's program --REQUEST to 52--> <path>_52 <-- host's program -----+
//! ```
//!
//! With `vhost` none of this is used: the host's kernel moves the data, see kernel.rs.
//!
//! The host protocol is Firecracker's (its docs/vsock.md), streams only. Access control is that of the
//! sockets' and their directory's permissions.

mod config;
mod connection;
mod credit;
mod flows;
mod greeting;
mod kernel;
mod listener;
pub mod packet;
mod poll;
mod properties;
mod reset_event;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use vmm_hostio::descriptor_remedy;
use vmm_hostio::path_keeper::KEPT_CALLS;
use vmm_virtio::{
    Allow, Claim, ConfigSpace, Counters, DeviceError, Fault, Kind, Needs, Persistence, Session, Setting,
    Step, Undelivered, VirtioDevice,
};

use self::config::Config;
use self::flows::{Flows, Host};
use self::greeting::Lobby;
use self::kernel::Kernel;
use self::listener::Listener;
use self::poll::Poll;
use self::properties::{EVENTQ_SIZE, QUEUE_SIZE, config_space};
use self::reset_event::ResetEvent;
use crate::descriptors;
use crate::timer::{TIMER_CALLS, Timer};

/// The queues (virtio 1.2 §5.10.2).
const RECEIVEQ: usize = 0;
const TRANSMITQ: usize = 1;

/// Token of the poll.
const SOCKETS: u32 = 0;
const CLIENTS: u32 = 1;
const TICK: u32 = 2;
/// In the poll, tokens of the lobby's clients start here; smaller ones are connections.
const LOBBY: usize = 1 << 16;
/// Maximum number of clients accepted per turn.
const CLIENTS_PER_TURN: u32 = 64;
/// Interval of checking deadlines, while there are any.
const TICK_PAUSE: Duration = Duration::from_millis(50);

/// The device, in either implementation.
pub struct Vsock {
    cid: u32,
    carrier: Box<dyn VirtioDevice>,
}

/// The implementation with Unix sockets on the host.
struct Sockets {
    space: ConfigSpace,
    listener: Listener,
    lobby: Lobby,
    flows: Flows,
    poll: Poll,
    timer: Timer,
    is_ticking: bool,
    /// The listener is watched: not while the lobby is full or the host is out of descriptors.
    is_accepting: bool,
    /// The log says that clients can't be accepted.
    has_told: bool,
    reset_event: ResetEvent,
}

impl Kind for Vsock {
    const NAME: &'static str = "vsock";
    const ID: u32 = 19;
    type Config = Config;

    fn config_claims(config: &Config, setting: &Setting<'_>) -> Vec<Claim> {
        config.path.iter().map(|path| Claim::socket("path", &setting.path(path))).collect()
    }

    fn open(config: Config, setting: &Setting<'_>) -> Result<Self, DeviceError> {
        let cid = config.cid.get() as u32;
        let carrier: Box<dyn VirtioDevice> = match config.path()? {
            Some(path) => Box::new(Sockets::open(cid, setting.path(path), setting.plan_only)?),
            None => Box::new(Kernel::open(cid)?),
        };
        Ok(Self { cid, carrier })
    }
}

/// Connections of both sides; those to programs come from the path keeper.
const CALLS: &[Allow] = &[
    Allow::call(libc::SYS_accept4),
    Allow::call(libc::SYS_recvfrom),
    Allow::masked(libc::SYS_sendto, 3, libc::MSG_FASTOPEN as u32, 0),
    Allow::call(libc::SYS_shutdown),
    Allow::all(libc::SYS_setsockopt, &[(1, &[libc::SOL_SOCKET as u32]), (2, &[libc::SO_SNDBUF as u32])]),
    // Whether it is a monitor's socket.
    Allow::call(libc::SYS_getpeername),
    Allow::call(libc::SYS_epoll_pwait2),
];

impl VirtioDevice for Vsock {
    fn needs(&self) -> Needs {
        self.carrier.needs()
    }

    fn features(&self) -> u64 {
        self.carrier.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.carrier.queue_sizes()
    }

    fn config_space(&self) -> ConfigSpace {
        self.carrier.config_space()
    }

    fn note(&self) -> Option<String> {
        self.carrier.note()
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::new("cid", "context id", self.cid.to_string())]
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.carrier.start(session)
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        self.carrier.process(queue, session)
    }

    fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        self.carrier.event(token, session)
    }

    fn stop(&mut self, session: &mut Session) {
        self.carrier.stop(session);
    }

    fn reset(&mut self) {
        self.carrier.reset();
    }

    fn power_cycle(&mut self) {
        self.carrier.power_cycle();
    }

    fn persistence(&mut self) -> Persistence<'_> {
        self.carrier.persistence()
    }

    fn deliver(&mut self, patience: Duration) -> Vec<Undelivered> {
        self.carrier.deliver(patience)
    }
}

impl VirtioDevice for Sockets {
    fn needs(&self) -> Needs {
        Needs {
            connects: vec![self.listener.programs()],
            removes: vec![self.listener.socket().path().to_owned()],
            ..Needs::calls(&[CALLS, KEPT_CALLS, TIMER_CALLS])
        }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE, QUEUE_SIZE, EVENTQ_SIZE]
    }

    fn config_space(&self) -> ConfigSpace {
        self.space.clone()
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        let now = Instant::now();
        self.flows.refresh(now);
        self.lobby.refresh(now);
        // Their events are dropped while data is delivered without a driver.
        for (place, socket) in self.lobby.sockets() {
            session.counters().errors.add(self.poll.rename(socket, LOBBY + place).is_err().into());
        }
        let watched = [session.watch(&self.poll, SOCKETS), session.watch(&self.timer, TICK)];
        session.counters().errors.add(watched.iter().filter(|watched| watched.is_err()).count() as u64);
        self.set_accepting(true, session);
        self.reset_event.refresh();
        self.reset_event.proceed(session)?;
        self.tick_if_needed();
        Ok(())
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        match queue {
            RECEIVEQ => self.receive(session),
            TRANSMITQ => self.transmit(session),
            // Buffers for events stay in the queue, unless there is one.
            _ => {
                self.reset_event.proceed(session)?;
                self.receive(session)
            }
        }
    }

    fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        match token {
            SOCKETS => self.wake(&counters),
            CLIENTS => self.accept(session),
            _ => {
                self.tick(session);
                self.reset_event.proceed(session)?;
            }
        }
        self.receive(session)
    }

    fn stop(&mut self, session: &mut Session) {
        let _ = session.unwatch(&self.poll);
        let _ = session.unwatch(&self.timer);
        self.set_accepting(false, session);
    }

    /// Ends connections at once, so that host programs don't have to wait for the next driver. They survive a pause.
    fn reset(&mut self) {
        self.flows.clear();
        self.reset_event = ResetEvent::None;
    }

    /// As [`reset`](Self::reset), for the next guest's driver.
    fn power_cycle(&mut self) {
        self.reset();
    }

    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Own(self)
    }

    fn deliver(&mut self, patience: Duration) -> Vec<Undelivered> {
        let (until, counters) = (Instant::now() + patience, Counters::default());
        let mut events = self.poll.take();
        loop {
            let now = Instant::now();
            for event in events.into_iter().filter(|event| event.token < LOBBY) {
                let host = Host { listener: &self.listener, poll: &self.poll, counters: &counters, now };
                self.flows.wake(event.token, event.is_hung_up, host);
            }
            let left = self.flows.undelivered();
            if left.is_empty() || now >= until {
                return left;
            }
            events = self.poll.take_within(until - now);
        }
    }
}

impl Sockets {
    fn open(cid: u32, path: PathBuf, plan_only: bool) -> Result<Self, DeviceError> {
        let host = |error: io::Error| DeviceError::host("", error);
        let (poll, timer) = (Poll::new().map_err(host)?, Timer::new().map_err(host)?);
        let listener = Listener::open(path, plan_only)?;
        let descriptors = descriptors::half() as usize;
        let lobby = Lobby::within(descriptors);
        let connections = (descriptors - lobby.most()).min(descriptors::MOST as usize);
        Ok(Self {
            space: config_space(cid),
            listener,
            lobby,
            flows: Flows::new(cid, QUEUE_SIZE, connections),
            poll,
            timer,
            is_ticking: false,
            is_accepting: false,
            has_told: false,
            reset_event: ResetEvent::None,
        })
    }

    /// Handles packets from the guest.
    fn transmit(&mut self, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        let host =
            Host { listener: &self.listener, poll: &self.poll, counters: &counters, now: Instant::now() };
        let flows = &mut self.flows;
        session.drain(TRANSMITQ, |chain| flows.take(&chain, host).map(|()| Step::Used(0)))?;
        self.receive(session)
    }

    /// Sends packets to the guest.
    fn receive(&mut self, session: &mut Session) -> Result<(), Fault> {
        if !self.flows.is_idle() && !self.reset_event.is_holding() {
            let counters = session.counters().clone();
            let host =
                Host { listener: &self.listener, poll: &self.poll, counters: &counters, now: Instant::now() };
            let flows = &mut self.flows;
            session.drain(RECEIVEQ, |chain| flows.give(&chain, host))?;
        }
        self.tick_if_needed();
        Ok(())
    }

    /// Handles events of sockets.
    fn wake(&mut self, counters: &Counters) {
        let now = Instant::now();
        for readiness in self.poll.take() {
            let host = Host { listener: &self.listener, poll: &self.poll, counters, now };
            match readiness.token.checked_sub(LOBBY) {
                None => self.flows.wake(readiness.token, readiness.is_hung_up, host),
                Some(place) => self.greet(place, readiness.is_hung_up, counters, now),
            }
        }
    }

    /// Accepts waiting host clients.
    fn accept(&mut self, session: &Session) {
        let now = Instant::now();
        for _ in 0..CLIENTS_PER_TURN {
            if self.lobby.is_full() {
                return self.set_accepting(false, session);
            }
            let socket = match self.listener.accept() {
                Ok(socket) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client has gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // Out of file descriptors or memory: pause until the next tick.
                Err(error) => return self.accept_later(&error, session),
            };
            let place = self.lobby.enter(socket, now);
            let socket = self.lobby.socket(place).expect("it has entered a moment ago");
            if self.poll.add(socket, LOBBY + place).is_err() {
                session.counters().errors.add(1);
                self.lobby.leave(place, true);
            }
        }
    }

    /// The host can't accept a client: tries again at the next tick.
    fn accept_later(&mut self, error: &io::Error, session: &Session) {
        session.counters().errors.add(1);
        self.set_accepting(false, session);
        // Once: whoever connects mustn't fill the log.
        if !std::mem::replace(&mut self.has_told, true) {
            session.tell(format!(
                "can't accept a host program's connection, which waits until it can be: {error}{}",
                descriptor_remedy(error)
            ));
        }
    }

    /// Handles a client that may have sent its line.
    fn greet(&mut self, place: usize, is_gone: bool, counters: &Counters, now: Instant) {
        let Some((socket, port)) = self.lobby.leave(place, is_gone) else { return };
        let Some(slot) = self.flows.open_for_host(socket, port, now) else {
            return counters.errors.add(1);
        };
        let moved = self.flows.socket(slot).map(|socket| self.poll.rename(socket, slot));
        if !matches!(moved, Some(Ok(()))) {
            counters.errors.add(1);
            self.flows.close(slot);
        }
    }

    fn tick(&mut self, session: &Session) {
        self.timer.acknowledge();
        self.is_ticking = false;
        let counters = session.counters().clone();
        let now = Instant::now();
        self.lobby.expire(now);
        self.flows.expire(Host { listener: &self.listener, poll: &self.poll, counters: &counters, now });
        self.set_accepting(!self.lobby.is_full(), session);
    }

    fn tick_if_needed(&mut self) {
        let is_needed = !self.lobby.is_empty() || self.flows.has_deadlines() || !self.is_accepting;
        let is_needed = is_needed || self.reset_event.is_holding();
        if is_needed && !self.is_ticking {
            self.is_ticking = self.timer.once(TICK_PAUSE).is_ok();
        }
    }

    fn set_accepting(&mut self, is_wanted: bool, session: &Session) {
        if is_wanted && !self.is_accepting {
            self.is_accepting = session.watch(self.listener.socket(), CLIENTS).is_ok();
        } else if !is_wanted && self.is_accepting {
            let _ = session.unwatch(self.listener.socket());
            self.is_accepting = false;
        }
    }
}
