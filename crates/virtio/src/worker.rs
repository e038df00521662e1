//! The thread that owns a device.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_queue::QueueState;
use vmm_memory::GuestRam;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::device::DEVICE_TOKEN;
use crate::queue::Surroundings;
use crate::{Counters, Fault, Interrupt, Queue, Session, VirtioDevice};

/// The token of the commands; queues have theirs from 0 on.
const COMMANDS: u64 = DEVICE_TOKEN - 1;
/// Events taken from epoll at once.
const EVENTS: usize = 16;
/// Linux's limit of a thread's name, in bytes (TASK_COMM_LEN without its NUL).
const NAME_LEN: usize = 15;

/// What the transport and the thread both know.
pub(crate) struct Shared {
    activity: AtomicU8,
    pub(crate) interrupt: Arc<dyn Interrupt>,
    pub(crate) counters: Arc<Counters>,
    /// DEVICE_NEEDS_RESET: the driver broke the rules.
    needs_reset: AtomicBool,
    /// What it did, until somebody tells it.
    fault: Mutex<Option<Fault>>,
    /// Written when a stop is done, or the driver broke the rules.
    news: Arc<EventFd>,
}

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const STOPPING: u8 = 2;

impl Shared {
    pub(crate) fn new(interrupt: Arc<dyn Interrupt>, counters: Arc<Counters>, news: Arc<EventFd>) -> Self {
        let (activity, needs_reset, fault) = (AtomicU8::new(IDLE), AtomicBool::new(false), Mutex::new(None));
        Self { activity, interrupt, counters, needs_reset, fault, news }
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(crate) fn take_fault(&self) -> Option<Fault> {
        self.fault.lock().expect("no panic while it is held").take()
    }

    fn break_down(&self, fault: Fault) {
        self.counters.faults.add(1);
        *self.fault.lock().expect("no panic while it is held") = Some(fault);
        self.needs_reset.store(true, Ordering::Release);
        self.interrupt.config();
        self.tell();
    }

    fn tell(&self) {
        // Non-blocking; at its counter's end it can be read anyway.
        let _ = self.news.write(1);
    }
}

/// A queue as the driver set it up, or `None`.
pub(crate) type QueueStates = Vec<Option<QueueState>>;

enum Command {
    Start { features: u64, queues: QueueStates },
    Stop { states: Option<Sender<QueueStates>> },
    ConfigWritten,
    Quit,
}

/// The handle of a device's thread. Dropping it stops the device and ends the thread.
pub(crate) struct Worker {
    commands: Sender<Command>,
    wake: EventFd,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Gives `device` a thread of its own, idle. Each of `kicks` rings for the queue of that number.
    pub(crate) fn spawn(
        name: &str,
        device: Box<dyn VirtioDevice>,
        ram: GuestRam,
        kicks: Vec<Arc<EventFd>>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let wake = EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let epoll = Epoll::new()?;
        epoll.ctl(ControlOperation::Add, wake.as_raw_fd(), EpollEvent::new(EventSet::IN, COMMANDS))?;
        let (commands, received) = channel();
        let thread = Thread {
            device,
            ram,
            kicks,
            shared: Arc::clone(&shared),
            epoll: Arc::new(epoll),
            wake: wake.try_clone()?,
            commands: received,
            session: None,
        };
        let name: String = format!("vq-{name}").chars().take(NAME_LEN).collect();
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_LEN).spawn(|| thread.run())?;
        Ok(Self { commands, wake, shared, thread: Some(thread) })
    }

    /// The device neither runs nor finishes what it had.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.activity.load(Ordering::Acquire) == IDLE
    }

    /// Starts an idle device.
    pub(crate) fn start(&self, features: u64, queues: QueueStates) {
        self.shared.activity.store(RUNNING, Ordering::Release);
        self.send(Command::Start { features, queues });
    }

    /// Asks a running device to stop for a reset. There is news when it has, and [`is_idle`](Self::is_idle) then.
    pub(crate) fn begin_reset(&self) {
        self.shared.activity.store(STOPPING, Ordering::Release);
        self.send(Command::Stop { states: None });
    }

    /// Stops a running device, to go on later, and waits for it.
    pub(crate) fn stop(&self) -> QueueStates {
        self.shared.activity.store(STOPPING, Ordering::Release);
        let (states, received) = channel();
        self.send(Command::Stop { states: Some(states) });
        // An error means that the thread has gone, and its queues with it.
        received.recv().unwrap_or_default()
    }

    pub(crate) fn config_written(&self) {
        self.send(Command::ConfigWritten);
    }

    fn send(&self, command: Command) {
        // The thread lives as long as this handle; if it panicked, nobody is there to obey.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.send(Command::Quit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Of a device's thread, in bytes: its deepest calls are those of its files, a few KiB.
const STACK_LEN: usize = 256 << 10;

/// The thread's own.
struct Thread {
    device: Box<dyn VirtioDevice>,
    ram: GuestRam,
    kicks: Vec<Arc<EventFd>>,
    shared: Arc<Shared>,
    epoll: Arc<Epoll>,
    wake: EventFd,
    commands: Receiver<Command>,
    session: Option<Running>,
}

struct Running {
    session: Session,
    /// It broke the rules, and nothing is done for it any more.
    is_broken: bool,
}

impl Thread {
    fn run(mut self) {
        let mut events = [EpollEvent::default(); EVENTS];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                // Only a closed descriptor could be the reason, and it's ours.
                Err(_) => return,
            };
            for event in &events[..count] {
                match event.data() {
                    COMMANDS => {
                        if !self.obey() {
                            return;
                        }
                        // What else was ready may have been of a session that is over.
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

    fn kicked(&mut self, queue: usize) {
        // Non-blocking; how often doesn't matter.
        let _ = self.kicks[queue].read();
        self.shared.counters.kicks.add(1);
        self.process(queue);
    }

    /// Nothing, if the driver didn't set that queue up.
    fn process(&mut self, queue: usize) {
        self.with(|device, session| match session.queue(queue) {
            Some(_) => device.process(queue, session),
            None => Ok(()),
        });
    }

    /// Does something for the running device, unless it is broken.
    fn with(&mut self, act: impl FnOnce(&mut dyn VirtioDevice, &mut Session) -> Result<(), Fault>) {
        let Some(running) = self.session.as_mut().filter(|running| !running.is_broken) else { return };
        if let Err(fault) = act(&mut *self.device, &mut running.session) {
            running.is_broken = true;
            self.shared.break_down(fault);
        }
    }

    /// Carries out the commands that wait. False at the last of them.
    fn obey(&mut self) -> bool {
        let _ = self.wake.read();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Start { features, queues } => self.start(features, queues),
                Command::Stop { states } => {
                    let stopped = self.stop();
                    let is_reset = states.is_none();
                    if is_reset {
                        self.shared.needs_reset.store(false, Ordering::Release);
                        self.shared.interrupt.reset();
                    }
                    self.shared.activity.store(IDLE, Ordering::Release);
                    if let Some(states) = states {
                        let _ = states.send(stopped);
                    }
                    self.shared.tell();
                }
                Command::ConfigWritten => self.with(|device, session| device.config_written(session)),
                Command::Quit => {
                    self.stop();
                    return false;
                }
            }
        }
        true
    }

    fn start(&mut self, features: u64, states: QueueStates) {
        let around = Surroundings {
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
                state.map(|state| Queue::new(index, state, Arc::clone(kick), &around)).transpose()
            })
            .collect();
        let (queues, fault) = match queues {
            Ok(queues) => (queues, None),
            Err(fault) => (self.kicks.iter().map(|_| None).collect(), Some(fault)),
        };
        let session = Session {
            queues,
            features,
            ram: around.ram,
            interrupt: around.interrupt,
            counters: around.counters,
            epoll: Arc::clone(&self.epoll),
        };
        self.session = Some(Running { session, is_broken: false });
        self.with(|device, session| match fault {
            Some(fault) => Err(fault),
            None => device.start(session),
        });
        for index in 0..self.kicks.len() {
            let event = EpollEvent::new(EventSet::IN, index as u64);
            // Only a full table of the host could be the reason; the device then lives by what comes below.
            let _ = self.epoll.ctl(ControlOperation::Add, self.kicks[index].as_raw_fd(), event);
            // Chains may have come while nobody listened.
            self.process(index);
        }
    }

    fn stop(&mut self) -> QueueStates {
        let Some(mut running) = self.session.take() else { return Vec::new() };
        for kick in &self.kicks {
            let _ = self.epoll.ctl(ControlOperation::Delete, kick.as_raw_fd(), EpollEvent::default());
        }
        self.device.stop(&mut running.session);
        running.session.queues.into_iter().map(|queue| queue.map(Queue::into_state)).collect()
    }
}
