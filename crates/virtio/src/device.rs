//! What a virtio device is, and what it is given while it runs.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use serde_json::{Map, Value};
use vmm_memory::GuestRam;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::notices::NoticeQueue;
use crate::{ConfigSpace, Counters, DeviceError, Fault, HostPort, Interrupt, Queue};

/// A virtio device: the part behind the transport. It is owned by its own thread, which calls every method, so that it
/// needs no lock.
///
/// ```text
///             start                    stop
///  idle -----------------> running ---------------> idle
///    ^   DRIVER_OK, resume    |   reset, suspend
///    |                        | process: the driver has rung, or chains may have come while it was idle
///    |                        | event:   a descriptor that it watches is ready
///    |                        | config_written
///    +------------------------+ Err(Fault): DEVICE_NEEDS_RESET; nothing but stop comes then
/// ```
pub trait VirtioDevice: Send {
    /// The features of its kind that it offers, as bits (virtio 1.2 §2.2). Those of the rings are its transport's.
    fn features(&self) -> u64 {
        0
    }

    /// The most descriptors that each of its queues takes, powers of two. Their number is that of its queues.
    fn queue_sizes(&self) -> Vec<u16>;

    /// What its driver reads as configuration.
    fn config_space(&self) -> ConfigSpace {
        ConfigSpace::read_only([])
    }

    /// What whoever runs the machine may want to know of it, such as which of the host's ways it goes; for the log.
    fn note(&self) -> Option<String> {
        None
    }

    /// What only it may have in its machine. Whoever makes a machine refuses one in which two devices claim the same.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }

    /// The host's half of its line, for the machine to connect to a terminal or another end; once.
    fn port(&mut self) -> Option<HostPort> {
        None
    }

    /// A file that the guest sees as memory, for the machine to map before the guest runs.
    fn mapping(&mut self) -> Option<Mapping> {
        None
    }

    /// Where that memory is.
    fn mapped(&mut self, gpa: u64) {
        let _ = gpa;
    }

    /// The driver is ready, with what it chose in `session`; or a stopped device goes on.
    ///
    /// # Errors
    /// The driver broke the rules, here as below.
    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        let _ = session;
        Ok(())
    }

    /// There may be chains in the queue with this number.
    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault>;

    /// A descriptor that it [watches](Session::watch) is ready, or was a moment ago: it reads without blocking.
    fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let _ = (token, session);
        Ok(())
    }

    /// The driver has written its configuration space.
    fn config_written(&mut self, session: &mut Session) -> Result<(), Fault> {
        let _ = session;
        Ok(())
    }

    /// Changes the device while its machine exists, as a user's command asks: `fields` is an object such as `{"link": "down"}`
    /// with the fields that a running device can change. `session` is `None` while no driver uses the device, and while the
    /// machine is paused; what the driver must be told of the change is then told by [`start`](Self::start). The change lasts
    /// until the monitor ends, resets of the guest included.
    ///
    /// # Errors
    /// A field is unknown or its value can't be used, and nothing has changed; or the host refuses.
    fn update(&mut self, fields: &Value, session: Option<&mut Session>) -> Result<(), DeviceError> {
        let _ = (fields, session);
        Err(DeviceError::config("", "nothing of this device can be changed while its machine exists"))
    }

    /// The device's state for its user, such as `{"link": "up"}`.
    fn report(&mut self) -> Map<String, Value> {
        Map::new()
    }

    /// The driver resets the device, or the machine stops it. When this returns, every chain that the device kept has been
    /// given back, and nothing of it touches guest memory any more.
    fn stop(&mut self, session: &mut Session) {
        let _ = session;
    }

    /// The driver has reset the device, which is stopped: what it knew of that driver is over. After a stop by the machine alone
    /// it goes on.
    fn reset(&mut self) {}

    /// Its machine has ended, and the device, idle, goes on in another one: it keeps what it opened, such as a disk with what
    /// was written to it, a lock or a socket's name, and is otherwise as after it was opened. What a driver's reset does is in
    /// [`start`](Self::start) and [`stop`](Self::stop) already.
    fn power_cycle(&mut self) {}
}

/// Something that no two devices of a machine may have, such as the address of a network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The field of the config that gives it another, such as `mac` or `forward[1]`.
    pub field: String,
    /// What it is, for the message: `address`.
    pub what: &'static str,
    /// Which, as a config would say it.
    pub value: String,
    /// The value that this one is a part of: whoever has that has this, too.
    pub part_of: Option<String>,
}

impl Claim {
    /// Of a value that is part of no other.
    pub fn new(field: impl Into<String>, what: &'static str, value: impl Into<String>) -> Self {
        Self { field: field.into(), what, value: value.into(), part_of: None }
    }

    /// Whether only one of the two can be had.
    pub fn excludes(&self, other: &Claim) -> bool {
        let is_part = |one: &Claim, other: &Claim| one.part_of.as_ref() == Some(&other.value);
        let is_same = self.value == other.value || is_part(self, other) || is_part(other, self);
        self.what == other.what && is_same
    }
}

/// A file that the guest sees as memory (virtio-pmem).
#[derive(Debug)]
pub struct Mapping {
    /// The file.
    pub file: File,
    /// Its length in bytes, whole pages.
    pub len: u64,
    /// Whether the guest can only read it.
    pub read_only: bool,
}

/// What a running device works with.
pub struct Session {
    /// Those that the driver set up.
    pub(crate) queues: Vec<Option<Queue>>,
    pub(crate) features: u64,
    pub(crate) ram: GuestRam,
    pub(crate) interrupt: Arc<dyn Interrupt>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) notices: Arc<NoticeQueue>,
    pub(crate) epoll: Arc<Epoll>,
}

/// Tokens of a device are above this bit in the epoll of its thread, those of its queues below.
pub(crate) const DEVICE_TOKEN: u64 = 1 << 32;

impl Session {
    /// The queue with this number, if the driver set it up.
    pub fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        self.queues.get_mut(index)?.as_mut()
    }

    /// [`Queue::drain`] of the queue with this number; nothing, if the driver didn't set it up.
    ///
    /// # Errors
    /// As there.
    pub fn drain(
        &mut self,
        index: usize,
        each: impl FnMut(crate::Chain<'_>) -> Result<crate::Step, Fault>,
    ) -> Result<(), Fault> {
        self.queue(index).map_or(Ok(()), |queue| queue.drain(each))
    }

    /// Takes a queue away for somebody else to serve: its kicks aren't listened to any more, and for the device there is no such
    /// queue until [`give_back`](Self::give_back). `None` if the driver didn't set it up.
    pub(crate) fn lend(&mut self, index: usize) -> Option<Queue> {
        let queue = self.queues.get_mut(index)?.take()?;
        // At the start it isn't watched yet.
        let _ = self.unwatch(queue.kick());
        Some(queue)
    }

    /// Has a lent queue again, whose kicks still aren't listened to, before the stop ends.
    pub(crate) fn give_back(&mut self, queue: Queue) {
        let index = queue.index();
        self.queues[index] = Some(queue);
    }

    /// How many queues the device has, set up or not.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Whether the driver took the feature with this bit.
    pub fn has_feature(&self, bit: u32) -> bool {
        self.features & (1 << bit) != 0
    }

    /// What the driver took, as bits; those of the rings too.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The guest's memory.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// What the device counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Says something to whoever runs the machine, who sees it in the log behind the device's name: a line, and seldom. What
    /// a guest can bring about without end the device says a bounded number of times; the log takes a bounded number of
    /// each device.
    pub fn tell(&self, text: impl Into<String>) {
        self.notices.push(text.into());
    }

    /// Tells the driver that the configuration space has changed.
    pub fn config_changed(&self) {
        self.counters.interrupts.add(1);
        self.interrupt.config();
    }

    /// Has [`VirtioDevice::event`] called with `token` whenever `fd` can be read (level-triggered), until the device stops
    /// watching; it must before it closes the descriptor.
    ///
    /// # Errors
    /// What can't be waited for, such as a regular file.
    pub fn watch(&self, fd: &impl AsRawFd, token: u32) -> io::Result<()> {
        self.watch_for(fd, token, EventSet::IN)
    }

    /// [`watch`](Self::watch) for other events.
    ///
    /// # Errors
    /// As there.
    pub fn watch_for(&self, fd: &impl AsRawFd, token: u32, events: EventSet) -> io::Result<()> {
        let event = EpollEvent::new(events, DEVICE_TOKEN | u64::from(token));
        self.epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), event)
    }

    /// Watches no more.
    ///
    /// # Errors
    /// It wasn't watched.
    pub fn unwatch(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Delete, fd.as_raw_fd(), EpollEvent::default())
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("queues", &self.queues)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}
