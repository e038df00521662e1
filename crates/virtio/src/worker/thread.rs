//! The device's thread: its event loop and its commands.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use vmm_bus::EventFd;
use vmm_memory::GuestRam;
use vmm_sandbox::{Allow, confine_thread};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::shared::{Command, IDLE, Inbox, QueueStates, Shared};
use crate::device::DEVICE_TOKEN;
use crate::queue::QueueContext;
use crate::{Fault, Queue, Session, VirtioDevice};

/// The token of the commands. Those of the queues are their indices.
const COMMANDS: u64 = DEVICE_TOKEN - 1;
/// Maximum number of events per epoll_wait.
const EVENTS: usize = 16;
/// How often a device without a driver tries to deliver what the host's programs haven't taken, in milliseconds. What they take
/// meanwhile is in the host's buffers, of some 200 KiB.
const DELIVERY_PAUSE_MS: i32 = 50;

/// The system calls of every device's thread: it waits for notifications. Interrupts and answers are writes to eventfds.
pub const DEVICE_CALLS: &[Allow] = &[
    Allow::call(libc::SYS_epoll_wait),
    Allow::call(libc::SYS_epoll_pwait),
    Allow::call(libc::SYS_epoll_ctl),
];

/// The state of the thread.
pub(super) struct Thread {
    device: Box<dyn VirtioDevice>,
    ram: GuestRam,
    kicks: Vec<Arc<EventFd>>,
    shared: Arc<Shared>,
    inbox: Inbox,
    watches: Watches,
    running: Option<Running>,
    /// The machine is paused: a driver uses the device, and it isn't called until it is resumed.
    is_suspended: bool,
}

/// What the thread waits for.
pub(super) struct Watches {
    /// While the device runs: commands, notifications and the device's descriptors.
    running: Arc<Epoll>,
    /// Otherwise: only commands, because a descriptor that stays ready would keep the thread spinning.
    resting: Epoll,
}

impl Watches {
    /// `wake` is written after each command.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new(wake: &EventFd) -> io::Result<Self> {
        let (running, resting) = (Arc::new(Epoll::new()?), Epoll::new()?);
        for epoll in [&*running, &resting] {
            epoll.ctl(ControlOperation::Add, wake.as_raw_fd(), EpollEvent::new(EventSet::IN, COMMANDS))?;
        }
        Ok(Self { running, resting })
    }
}

struct Running {
    session: Session,
    /// Its driver violated the specification, so the device isn't called any more.
    is_broken: bool,
    /// The device's `start` was called, so its `stop` must be.
    is_started: bool,
}

/// If the thread ends without a quit command, reports that to those who wait for it, after the device has
/// been dropped.
struct PanicGuard(Option<Arc<Shared>>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.is_gone.store(true, Ordering::SeqCst);
            shared.fail(Fault::Panicked);
        }
    }
}

impl Thread {
    pub(super) fn new(
        device: Box<dyn VirtioDevice>,
        ram: GuestRam,
        kicks: Vec<Arc<EventFd>>,
        shared: Arc<Shared>,
        (inbox, watches): (Inbox, Watches),
    ) -> Self {
        Self { device, ram, kicks, shared, inbox, watches, running: None, is_suspended: false }
    }

    /// Runs until the quit command and returns the device then.
    pub(super) fn run(self) -> Option<Box<dyn VirtioDevice>> {
        let mut guard = PanicGuard(Some(Arc::clone(&self.shared)));
        // Parameters are dropped after local variables, and the device must be dropped before the guard.
        let mut thread = self;
        thread.confine();
        let has_quit = thread.run_until_quit();
        if has_quit {
            guard.0 = None;
        }
        has_quit.then_some(thread.device)
    }

    /// Restricts this thread to the system calls that its device needs.
    ///
    /// # Panics
    /// The kernel refuses a filter: the device must not run without one.
    fn confine(&self) {
        let needs = self.device.needs();
        let lists = [&[self.shared.interrupt.calls()], &needs.calls[..], &[DEVICE_CALLS]].concat();
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        confine_thread(&name, &lists).expect("a filter was accepted at the start");
    }

    /// Whether it ended by a quit command; false if epoll failed.
    fn run_until_quit(&mut self) -> bool {
        let mut events = [EpollEvent::default(); EVENTS];
        loop {
            let is_running = self.running.as_ref().is_some_and(|running| !running.is_broken);
            let timeout = if is_running { -1 } else { self.deliver() };
            let epoll = if is_running { &self.watches.running } else { &self.watches.resting };
            let count = match epoll.wait(timeout, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                // It fails only for a closed descriptor, and this one is ours.
                Err(_) => return false,
            };
            for event in &events[..count] {
                match event.data() {
                    COMMANDS => {
                        if !self.run_commands() {
                            return true;
                        }
                        // Other events may belong to a session that has ended.
                        break;
                    }
                    token if token >= DEVICE_TOKEN => {
                        self.with(|device, session| device.event((token - DEVICE_TOKEN) as u32, session));
                    }
                    queue => self.kicked(queue as usize),
                }
            }
        }
    }

    /// Has a device without a driver deliver what it has for the host's programs. Returns the time until it has to be called again,
    /// as epoll_wait(2) takes it.
    fn deliver(&mut self) -> i32 {
        if self.is_suspended || self.device.deliver(Duration::ZERO).is_empty() {
            -1
        } else {
            DELIVERY_PAUSE_MS
        }
    }

    fn kicked(&mut self, queue: usize) {
        // Non-blocking; the count doesn't matter.
        let _ = self.kicks[queue].read();
        self.shared.counters.kicks.add(1);
        self.process(queue);
    }

    /// Does nothing if the driver didn't set the queue up.
    fn process(&mut self, queue: usize) {
        self.with(|device, session| match session.queue(queue) {
            Some(_) => device.process(queue, session),
            None => Ok(()),
        });
    }

    /// Calls `act` for the running device, unless it is broken.
    fn with(&mut self, act: impl FnOnce(&mut dyn VirtioDevice, &mut Session) -> Result<(), Fault>) {
        let Some(running) = self.running.as_mut().filter(|running| !running.is_broken) else { return };
        if let Err(fault) = act(&mut *self.device, &mut running.session) {
            running.is_broken = true;
            self.shared.fail(fault);
        }
    }

    /// Executes the pending commands. False after the quit command.
    fn run_commands(&mut self) -> bool {
        let _ = self.inbox.wake.read();
        // A configuration write precedes the commands sent after it, so that a stop can't swallow it.
        self.config_written();
        while let Ok(command) = self.inbox.commands.try_recv() {
            match command {
                Command::Start { features, queues } => {
                    self.start(features, queues);
                    self.config_written();
                }
                Command::Stop { states } => {
                    let stopped = self.stop();
                    let is_reset = states.is_none();
                    self.is_suspended = !is_reset;
                    if is_reset {
                        self.device.reset();
                        self.shared.config_written.store(false, Ordering::SeqCst);
                        self.device.config_space().reset();
                        self.shared.needs_reset.store(false, Ordering::Release);
                        self.shared.interrupt.reset();
                    }
                    self.shared.activity.store(IDLE, Ordering::Release);
                    if let Some(states) = states {
                        let _ = states.send(stopped);
                    }
                    self.shared.signal_news();
                }
                Command::Do(act) => {
                    let running = self.running.as_mut().filter(|running| !running.is_broken);
                    act(&mut *self.device, running.map(|running| &mut running.session));
                    self.shared.signal_news();
                }
                Command::Quit => {
                    self.stop();
                    return false;
                }
            }
        }
        true
    }

    fn config_written(&mut self) {
        if self.running.is_some() && self.shared.config_written.swap(false, Ordering::SeqCst) {
            self.with(|device, session| device.config_written(session));
        }
    }

    fn start(&mut self, features: u64, states: QueueStates) {
        let context = QueueContext {
            ram: self.ram.clone(),
            interrupt: Arc::clone(&self.shared.interrupt),
            counters: Arc::clone(&self.shared.counters),
            indirect: features & (1 << VIRTIO_RING_F_INDIRECT_DESC) != 0,
        };
        let queues: Result<Vec<_>, Fault> = states
            .into_iter()
            .zip(&self.kicks)
            .enumerate()
            .map(|(index, (state, kick))| {
                state.map(|state| Queue::new(index, state, Arc::clone(kick), &context)).transpose()
            })
            .collect();
        let (queues, fault) = match queues {
            Ok(queues) => (queues, None),
            Err(fault) => (self.kicks.iter().map(|_| None).collect(), Some(fault)),
        };
        let session = Session {
            queues,
            features,
            ram: context.ram,
            interrupt: context.interrupt,
            counters: context.counters,
            notices: Arc::clone(&self.shared.notices),
            epoll: Arc::clone(&self.watches.running),
        };
        self.is_suspended = false;
        // If the device needed a reset when it was suspended, it still does.
        let is_broken = self.shared.needs_reset();
        let is_started = !is_broken && fault.is_none();
        self.running = Some(Running { session, is_broken, is_started });
        self.with(|device, session| match fault {
            Some(fault) => Err(fault),
            None => device.start(session),
        });
        for index in 0..self.kicks.len() {
            // Not set up, or lent to another server.
            if self.running.as_mut().is_none_or(|running| running.session.queue(index).is_none()) {
                continue;
            }
            let event = EpollEvent::new(EventSet::IN, index as u64);
            // It fails only if the host's limit of watches is reached; the device then relies on the call
            // below.
            let _ = self.watches.running.ctl(ControlOperation::Add, self.kicks[index].as_raw_fd(), event);
            // Chains may have become available before the kick was watched.
            self.process(index);
        }
    }

    fn stop(&mut self) -> QueueStates {
        let Some(running) = self.running.take() else { return Vec::new() };
        for kick in &self.kicks {
            let _ =
                self.watches.running.ctl(ControlOperation::Delete, kick.as_raw_fd(), EpollEvent::default());
        }
        let Running { mut session, is_broken, is_started } = running;
        if is_started {
            self.device.stop(&mut session);
        }
        if !is_broken {
            for queue in session.queues.iter_mut().flatten() {
                // Chains that the device returned at the end. A fault is ignored: the rings are read again at
                // the next start.
                let _ = queue.announce();
            }
        }
        session.queues.into_iter().map(|queue| queue.map(|queue| queue.state())).collect()
    }
}
