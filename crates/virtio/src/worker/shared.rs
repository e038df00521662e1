//! What the handle and the thread of a device both know, and what they send each other.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use virtio_queue::QueueState;
use vmm_sys_util::eventfd::EventFd;

use crate::notices::NoticeQueue;
use crate::{Counters, Fault, Interrupt, Session, VirtioDevice};

pub(super) const IDLE: u8 = 0;
pub(super) const RUNNING: u8 = 1;
pub(super) const STOPPING: u8 = 2;

/// What the transport and the thread both know.
pub(crate) struct Shared {
    pub(super) activity: AtomicU8,
    /// The thread has panicked, and nobody is there to stop or start anything.
    pub(super) is_gone: AtomicBool,
    /// The driver has written the configuration space since the device was told last. A flag and not a command: a driver
    /// can write faster than a device listens.
    pub(super) config_written: AtomicBool,
    pub(crate) interrupt: Arc<dyn Interrupt>,
    pub(crate) counters: Arc<Counters>,
    /// DEVICE_NEEDS_RESET: the driver broke the rules.
    pub(super) needs_reset: AtomicBool,
    /// What it did, until somebody tells it.
    pub(super) fault: Mutex<Option<Fault>>,
    /// What the device says, until somebody tells it.
    pub(crate) notices: Arc<NoticeQueue>,
    /// Written when a stop is done, or the driver broke the rules, or the device says something.
    pub(super) news: Arc<EventFd>,
}

impl Shared {
    pub(crate) fn new(interrupt: Arc<dyn Interrupt>, counters: Arc<Counters>, news: Arc<EventFd>) -> Self {
        let [is_gone, config_written, needs_reset] = [false; 3].map(AtomicBool::new);
        let (activity, fault) = (AtomicU8::new(IDLE), Mutex::new(None));
        let notices = Arc::new(NoticeQueue::new(Arc::clone(&news)));
        Self { activity, is_gone, config_written, interrupt, counters, needs_reset, fault, notices, news }
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(crate) fn take_fault(&self) -> Option<Fault> {
        self.fault.lock().expect("no panic while it is held").take()
    }

    pub(super) fn break_down(&self, fault: Fault) {
        self.counters.faults.add(1);
        *self.fault.lock().expect("no panic while it is held") = Some(fault);
        self.needs_reset.store(true, Ordering::Release);
        self.call_for_reset();
        self.tell();
    }

    /// The interrupt that goes with DEVICE_NEEDS_RESET (virtio 1.2 §2.1.2).
    pub(super) fn call_for_reset(&self) {
        self.counters.interrupts.add(1);
        self.interrupt.config();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
    }

    pub(super) fn tell(&self) {
        // Non-blocking; at its counter's end it can be read anyway.
        let _ = self.news.write(1);
    }
}

/// A queue as the driver set it up, or `None`.
pub(crate) type QueueStates = Vec<Option<QueueState>>;

/// Something to do with a device, and with its session if a driver uses it.
type Act = dyn FnOnce(&mut dyn VirtioDevice, Option<&mut Session>) + Send;

pub(super) enum Command {
    Start { features: u64, queues: QueueStates },
    Stop { states: Option<Sender<QueueStates>> },
    Do(Box<Act>),
    Quit,
}

/// Where commands come from.
pub(super) struct Inbox {
    pub(super) commands: Receiver<Command>,
    /// Written behind each.
    pub(super) wake: EventFd,
}
