//! State shared by a device's thread and its handle, and the commands between them.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use virtio_queue::QueueState;
use vmm_bus::EventFd;

use crate::notices::NoticeQueue;
use crate::{Counters, Fault, Interrupt, Session, VirtioDevice};

pub(super) const IDLE: u8 = 0;
pub(super) const RUNNING: u8 = 1;
pub(super) const STOPPING: u8 = 2;

/// State shared by the transport and the thread.
pub(crate) struct Shared {
    pub(super) activity: AtomicU8,
    /// The thread has panicked, and nothing starts or stops any more.
    pub(super) is_gone: AtomicBool,
    /// The driver has written to the configuration space since the device was last notified. A flag rather
    /// than a command, because a driver can write faster than a device handles it.
    pub(super) config_written: AtomicBool,
    pub(crate) interrupt: Arc<dyn Interrupt>,
    pub(crate) counters: Arc<Counters>,
    /// DEVICE_NEEDS_RESET is set.
    pub(super) needs_reset: AtomicBool,
    /// Why, until it is taken.
    pub(super) fault: Mutex<Option<Fault>>,
    /// Log messages of the device, until they are taken.
    pub(crate) notices: Arc<NoticeQueue>,
    /// Written when a stop is finished, when there is a fault, and when there are log messages.
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

    pub(super) fn fail(&self, fault: Fault) {
        self.counters.faults.add(1);
        *self.fault.lock().expect("no panic while it is held") = Some(fault);
        self.needs_reset.store(true, Ordering::Release);
        self.raise_config();
        self.signal_news();
    }

    pub(crate) fn set_needs_reset(&self, is_needed: bool) {
        self.needs_reset.store(is_needed, Ordering::Release);
    }

    /// Raises the interrupt for DEVICE_NEEDS_RESET (virtio 1.2 §2.1.2) or a change of the configuration.
    pub(crate) fn raise_config(&self) {
        self.counters.interrupts.add(1);
        self.interrupt.config();
    }

    /// Raises the interrupt for used chains.
    pub(crate) fn raise_queue(&self, index: usize) {
        self.counters.interrupts.add(1);
        self.interrupt.queue(index);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
    }

    pub(super) fn signal_news(&self) {
        // Non-blocking; if the counter is at its maximum the eventfd is readable anyway.
        let _ = self.news.write(1);
    }
}

/// The state of each queue that the driver set up.
pub(crate) type QueueStates = Vec<Option<QueueState>>;

/// A call on the device's thread, with the session if a driver uses the device.
type Act = dyn FnOnce(&mut dyn VirtioDevice, Option<&mut Session>) + Send;

pub(super) enum Command {
    Start { features: u64, queues: QueueStates },
    Stop { states: Option<Sender<QueueStates>> },
    Do(Box<Act>),
    Quit,
}

/// The thread's end of the command channel.
pub(super) struct Inbox {
    pub(super) commands: Receiver<Command>,
    /// Written after each command.
    pub(super) wake: EventFd,
}
