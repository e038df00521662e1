//! The device trait, and the session that a running device works with.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use vmm_memory::GuestRam;
use vmm_sandbox::Needs;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::notices::NoticeQueue;
use crate::{
    ConfigSpace, Counters, DeviceError, DiskReport, Fault, HostPort, Interrupt, Persistence, Queue,
    Undelivered,
};

/// A virtio device, without its transport. Its own thread owns it and calls every method, so it needs no
/// locks.
///
/// ```text
///             start                    stop
///  idle -----------------> running ---------------> idle
///    ^   DRIVER_OK, resume    |   reset, suspend
///    |                        | process: notification by the driver, or chains may have come while it was idle
///    |                        | event:   a watched file descriptor is ready
///    |                        | config_written
///    +------------------------+ Err(Fault): DEVICE_NEEDS_RESET; only stop follows
/// ```
pub trait VirtioDevice: Send {
    /// Device-specific features that it offers, as bits (virtio 1.2 §2.2). The transport adds those of the
    /// rings.
    fn features(&self) -> u64 {
        0
    }

    /// Maximum size of each queue in descriptors, powers of two. The length is the number of queues.
    fn queue_sizes(&self) -> Vec<u16>;

    /// The configuration space.
    fn config_space(&self) -> ConfigSpace {
        ConfigSpace::read_only([])
    }

    /// A detail for the log, such as which of several host interfaces is used.
    fn note(&self) -> Option<String> {
        None
    }

    /// Resources that only one device of a machine may have. Machines in which two devices claim the same are
    /// rejected.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }

    /// What the device needs of the host after it was opened, besides [`DEVICE_CALLS`](crate::DEVICE_CALLS): what isn't declared isn't
    /// permitted once the monitor is confined. By default nothing else.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// The host's end of a console, for the machine to connect to a terminal or another backend. `Some` once.
    fn port(&mut self) -> Option<HostPort> {
        None
    }

    /// A file that the guest sees as memory, for the machine to map before the guest runs.
    fn mapping(&mut self) -> Option<Mapping> {
        None
    }

    /// Called with the guest-physical address of that mapping.
    fn mapped(&mut self, gpa: u64) {
        let _ = gpa;
    }

    /// Called at DRIVER_OK with the negotiated features and queues in `session`, and when a suspended device
    /// resumes.
    ///
    /// # Errors
    /// The driver violated the specification. The device then needs a reset and receives no further event
    /// until then.
    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        let _ = session;
        Ok(())
    }

    /// The queue may have available chains.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault>;

    /// A [watched](Session::watch) file descriptor is or recently was ready, so reads must be non-blocking.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let _ = (token, session);
        Ok(())
    }

    /// The driver has written to the configuration space.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    fn config_written(&mut self, session: &mut Session) -> Result<(), Fault> {
        let _ = session;
        Ok(())
    }

    /// Changes the device at run time on a user's command. `fields` is an object such as `{"link": "down"}`
    /// with the changeable fields. `session` is `None` while no driver uses the device and while the machine
    /// is paused; [`start`](Self::start) then notifies the driver of the change. The change lasts until the
    /// monitor exits, across guest resets.
    ///
    /// # Errors
    /// A field is unknown or its value is invalid, and nothing has changed; or the host refuses.
    fn update(&mut self, fields: &Value, session: Option<&mut Session>) -> Result<(), DeviceError> {
        let _ = (fields, session);
        Err(DeviceError::config("", "this device has no field that can be changed at run time"))
    }

    /// The device's state for the user, such as `{"link": "up"}`.
    fn report(&mut self) -> Map<String, Value> {
        Map::new()
    }

    /// Called when the driver resets the device or the machine stops it. On return, all chains that the
    /// device kept have been completed, and it no longer accesses guest memory.
    fn stop(&mut self, session: &mut Session) {
        let _ = session;
    }

    /// Called after the driver has reset the device, which is stopped: drops all state that belongs to that
    /// driver. A stop by the machine alone is followed by a resume instead.
    fn reset(&mut self) {}

    /// What the guest may have lost although the device had completed it, and what to do about it: for the
    /// end of the monitor, when the device has stopped. Not called unless it [may lose](Self::may_lose) something.
    fn loss(&self) -> Option<String> {
        None
    }

    /// Whether the device keeps the guest's data beyond the monitor's end, so that the guest can lose what the device has
    /// completed, for instance if it is never stopped because the host hangs. A writable disk does, but not a read-only or a
    /// temporary one.
    fn may_lose(&self) -> bool {
        false
    }

    /// The machine has ended, and the idle device is reused in another one. It keeps what it opened, such as
    /// a disk with its data, a lock or a socket, and is otherwise as newly opened. [`start`](Self::start) and
    /// [`stop`](Self::stop) already cover what a driver's reset does.
    fn power_cycle(&mut self) {}

    /// What a snapshot keeps of the device besides its queues and registers. Called while no driver uses it or the machine is paused.
    /// By default it is refused, because a device that is restored without its state fails its guest silently.
    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Refused("a device of this kind can't be saved".to_owned())
    }

    /// The disk that the device is, with the stamp of its files that its state has. Called after that was saved, before the
    /// machine goes on.
    fn disk(&self) -> Option<DiskReport> {
        None
    }

    /// The file with all that a writable disk's guest has written, to be copied into a snapshot. Called as [`disk`](Self::disk).
    ///
    /// # Errors
    /// Why there is none.
    fn disk_file(&self) -> Result<File, String> {
        Err("is not a disk".to_owned())
    }

    /// No driver uses the device, after a [reset](Self::reset) or a [power cycle](Self::power_cycle), or its driver
    /// has violated the specification: passes data that the guest regards as sent to the host's programs. Waits
    /// for them for at most `patience`, and returns what remains. It is called again until nothing does, or until
    /// a driver starts the device. What remains when the device is dropped is lost, and the host's program sees
    /// that, where the host's interface can express it.
    fn deliver(&mut self, patience: Duration) -> Vec<Undelivered> {
        let _ = patience;
        Vec::new()
    }
}

/// A resource that only one device of a machine may have, such as a network card's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The config field that selects another, such as `mac` or `forward[1]`.
    pub field: String,
    /// The resource's name in messages, such as `address`.
    pub what: &'static str,
    /// The resource's value, in the config's notation.
    pub value: String,
    /// A larger resource that includes this one: a claim of that value excludes this claim.
    pub part_of: Option<String>,
}

impl Claim {
    /// A claim of a value that isn't part of another.
    pub fn new(field: impl Into<String>, what: &'static str, value: impl Into<String>) -> Self {
        Self { field: field.into(), what, value: value.into(), part_of: None }
    }

    /// A claim of the name at which a unix socket listens, whatever path leads to its directory.
    pub fn socket(field: impl Into<String>, path: &Path) -> Self {
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default();
        let whole = directory.canonicalize().map(|directory| directory.join(name));
        Self::new(field, "socket", whole.as_deref().unwrap_or(path).display().to_string())
    }

    /// Whether the two claims exclude each other.
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
    /// Length in bytes, whole pages.
    pub len: u64,
    /// Whether the guest has read-only access.
    pub read_only: bool,
    /// Why the host may be unable to provide a page of it, and what to do, for the user.
    pub if_missing: String,
}

/// What a running device works with: queues, features, guest memory, interrupts and log.
pub struct Session {
    /// `None` for a queue that the driver didn't set up, or that is lent.
    pub(crate) queues: Vec<Option<Queue>>,
    pub(crate) features: u64,
    pub(crate) ram: GuestRam,
    pub(crate) interrupt: Arc<dyn Interrupt>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) notices: Arc<NoticeQueue>,
    pub(crate) epoll: Arc<Epoll>,
}

/// In the thread's epoll, tokens of the device have this bit set; smaller tokens are queue indices.
pub(crate) const DEVICE_TOKEN: u64 = 1 << 32;

impl Session {
    /// The queue `index`, if the driver set it up.
    pub fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        self.queues.get_mut(index)?.as_mut()
    }

    /// [`Queue::drain`] on the queue `index`; does nothing if the driver didn't set it up.
    ///
    /// # Errors
    /// Those of [`Queue::drain`].
    pub fn drain(
        &mut self,
        index: usize,
        each: impl FnMut(crate::Chain<'_>) -> Result<crate::Step, Fault>,
    ) -> Result<(), Fault> {
        self.queue(index).map_or(Ok(()), |queue| queue.drain(each))
    }

    /// Lends a queue to another server: its notifications are no longer watched, and the device doesn't have
    /// the queue until [`give_back`](Self::give_back). `None` if the driver didn't set it up.
    pub(crate) fn lend(&mut self, index: usize) -> Option<Queue> {
        let queue = self.queues.get_mut(index)?.take()?;
        // At the start it isn't watched yet.
        let _ = self.unwatch(queue.kick());
        Some(queue)
    }

    /// Returns a lent queue before the stop ends. Its notifications stay unwatched, unless [`listen`](Self::listen) is called.
    pub(crate) fn give_back(&mut self, queue: Queue) {
        let index = queue.index();
        self.queues[index] = Some(queue);
    }

    /// Has [`VirtioDevice::process`] called for the notifications of a queue that was given back while the device runs.
    pub(crate) fn listen(&self, index: usize) {
        let Some(Some(queue)) = self.queues.get(index) else { return };
        let event = EpollEvent::new(EventSet::IN, index as u64);
        // It fails only if the host's table of watches is full; the queue is then served at the next start.
        let _ = self.epoll.ctl(ControlOperation::Add, queue.kick().as_raw_fd(), event);
    }

    /// Number of the device's queues, whether set up or not.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Whether the driver accepted the feature with this bit number.
    pub fn has_feature(&self, bit: u32) -> bool {
        self.features & (1 << bit) != 0
    }

    /// The negotiated features as bits, including those of the rings.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The guest's memory.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// The device's counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Queues one log line, prefixed with the device id. If a guest can trigger the message without limit,
    /// the device must limit it; the log accepts a bounded number of messages per device.
    pub fn tell(&self, text: impl Into<String>) {
        self.notices.push(text.into());
    }

    /// Reports a destination that a rule has refused, besides the line about it: for programs that watch the machine.
    pub fn tell_refused(&self, destination: String) {
        self.notices.push_refused(destination);
    }

    /// Notifies the driver that the configuration space has changed.
    pub fn config_changed(&self) {
        self.counters.interrupts.add(1);
        self.interrupt.config();
    }

    /// Calls [`VirtioDevice::event`] with `token` whenever `fd` is readable (level-triggered). The device
    /// must [`unwatch`](Self::unwatch) the descriptor before it closes it.
    ///
    /// # Errors
    /// `fd` doesn't support epoll, such as a regular file.
    pub fn watch(&self, fd: &impl AsRawFd, token: u32) -> io::Result<()> {
        self.watch_for(fd, token, EventSet::IN)
    }

    /// [`watch`](Self::watch) for the given events.
    ///
    /// # Errors
    /// As for [`watch`](Self::watch).
    pub fn watch_for(&self, fd: &impl AsRawFd, token: u32, events: EventSet) -> io::Result<()> {
        let event = EpollEvent::new(events, DEVICE_TOKEN | u64::from(token));
        self.epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), event)
    }

    /// Stops watching `fd`.
    ///
    /// # Errors
    /// `fd` isn't watched.
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
