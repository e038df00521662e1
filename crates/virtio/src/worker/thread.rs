//! The thread itself: its loop, and what it does for its device.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use vmm_memory::GuestRam;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::shared::{Command, IDLE, Inbox, QueueStates, Shared};
use crate::device::DEVICE_TOKEN;
use crate::queue::Surroundings;
use crate::{Fault, Queue, Session, VirtioDevice};

/// The token of the commands; queues have theirs from 0 on.
const COMMANDS: u64 = DEVICE_TOKEN - 1;
/// Events taken from epoll at once.
const EVENTS: usize = 16;

/// The thread's own.
pub(super) struct Thread {
    device: Box<dyn VirtioDevice>,
    ram: GuestRam,
    kicks: Vec<Arc<EventFd>>,
    shared: Arc<Shared>,
    inbox: Inbox,
    /// What a running device waits for.
    epoll: Arc<Epoll>,
    /// What every other waits for: commands. Descriptors that are ready would keep the thread busy with doing nothing.
    resting: Epoll,
    running: Option<Running>,
}

struct Running {
    session: Session,
    /// Its driver broke the rules, and nothing is done for it any more.
    is_broken: bool,
    /// The device was told to start, and must be told to stop.
    is_started: bool,
}

/// Tells those who wait for the thread that they needn't, if it ends and nobody asked for that. By then the device has been
/// dropped.
struct Farewell(Option<Arc<Shared>>);

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.is_gone.store(true, Ordering::SeqCst);
            shared.break_down(Fault::Panicked);
        }
    }
}

impl Thread {
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new(
        device: Box<dyn VirtioDevice>,
        ram: GuestRam,
        kicks: Vec<Arc<EventFd>>,
        shared: Arc<Shared>,
        inbox: Inbox,
    ) -> io::Result<Self> {
        let (epoll, resting) = (Arc::new(Epoll::new()?), Epoll::new()?);
        for epoll in [&*epoll, &resting] {
            let commands = EpollEvent::new(EventSet::IN, COMMANDS);
            epoll.ctl(ControlOperation::Add, inbox.wake.as_raw_fd(), commands)?;
        }
        Ok(Self { device, ram, kicks, shared, inbox, epoll, resting, running: None })
    }

    /// Obeys until it is told to quit, and gives the device back then.
    pub(super) fn run(self) -> Option<Box<dyn VirtioDevice>> {
        let mut farewell = Farewell(Some(Arc::clone(&self.shared)));
        // Parameters are dropped after what is declared here, and the device must go before the farewell.
        let mut thread = self;
        let was_told = thread.obey_until_quit();
        if was_told {
            farewell.0 = None;
        }
        was_told.then_some(thread.device)
    }

    /// Whether it was told to; the host took its epoll away otherwise.
    fn obey_until_quit(&mut self) -> bool {
        let mut events = [EpollEvent::default(); EVENTS];
        loop {
            let is_running = self.running.as_ref().is_some_and(|running| !running.is_broken);
            let epoll = if is_running { &self.epoll } else { &self.resting };
            let count = match epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                // Only a closed descriptor could be the reason, and it's ours.
                Err(_) => return false,
            };
            for event in &events[..count] {
                match event.data() {
                    COMMANDS => {
                        if !self.obey() {
                            return true;
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
        let Some(running) = self.running.as_mut().filter(|running| !running.is_broken) else { return };
        if let Err(fault) = act(&mut *self.device, &mut running.session) {
            running.is_broken = true;
            self.shared.break_down(fault);
        }
    }

    /// Carries out the commands that wait. False at the last of them.
    fn obey(&mut self) -> bool {
        let _ = self.inbox.wake.read();
        // What was written before a command counts before it, so that a stop can't swallow it.
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
                    self.shared.tell();
                }
                Command::Do(act) => {
                    let running = self.running.as_mut().filter(|running| !running.is_broken);
                    act(&mut *self.device, running.map(|running| &mut running.session));
                    self.shared.tell();
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
            notices: Arc::clone(&self.shared.notices),
            epoll: Arc::clone(&self.epoll),
        };
        // A device that goes on where it was stopped needs its reset as before.
        let is_broken = self.shared.needs_reset();
        let is_started = !is_broken && fault.is_none();
        self.running = Some(Running { session, is_broken, is_started });
        self.with(|device, session| match fault {
            Some(fault) => Err(fault),
            None => device.start(session),
        });
        for index in 0..self.kicks.len() {
            // A queue that isn't set up is nobody's, and one that is lent is somebody else's.
            if self.running.as_mut().is_none_or(|running| running.session.queue(index).is_none()) {
                continue;
            }
            let event = EpollEvent::new(EventSet::IN, index as u64);
            // Only a full table of the host could be the reason; the device then lives by what comes below.
            let _ = self.epoll.ctl(ControlOperation::Add, self.kicks[index].as_raw_fd(), event);
            // Chains may have come while nobody listened.
            self.process(index);
        }
    }

    fn stop(&mut self) -> QueueStates {
        let Some(running) = self.running.take() else { return Vec::new() };
        for kick in &self.kicks {
            let _ = self.epoll.ctl(ControlOperation::Delete, kick.as_raw_fd(), EpollEvent::default());
        }
        let Running { mut session, is_broken, is_started } = running;
        if is_started {
            self.device.stop(&mut session);
        }
        if !is_broken {
            for queue in session.queues.iter_mut().flatten() {
                // What the device gave back last. A fault comes too late; the driver's rings are read again at the start.
                let _ = queue.announce();
            }
        }
        session.queues.into_iter().map(|queue| queue.map(|queue| queue.state())).collect()
    }
}
