//! The handle of the thread that owns a device, and what both know.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use virtio_queue::QueueState;
use vmm_memory::GuestRam;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::notices::NoticeQueue;
use crate::{Counters, Fault, Interrupt, VirtioDevice};

mod thread;

use thread::{Inbox, Thread};

/// Of a device's thread, in bytes: its deepest calls are those of its files, a few KiB.
const STACK_LEN: usize = 256 << 10;
/// Linux's limit of a thread's name, in bytes (TASK_COMM_LEN without its NUL).
const NAME_LEN: usize = 15;

/// What the transport and the thread both know.
pub(crate) struct Shared {
    activity: AtomicU8,
    /// The thread has panicked, and nobody is there to stop or start anything.
    is_gone: AtomicBool,
    /// The driver has written the configuration space since the device was told last. A flag and not a command: a driver
    /// can write faster than a device listens.
    config_written: AtomicBool,
    pub(crate) interrupt: Arc<dyn Interrupt>,
    pub(crate) counters: Arc<Counters>,
    /// DEVICE_NEEDS_RESET: the driver broke the rules.
    needs_reset: AtomicBool,
    /// What it did, until somebody tells it.
    fault: Mutex<Option<Fault>>,
    /// What the device says, until somebody tells it.
    pub(crate) notices: Arc<NoticeQueue>,
    /// Written when a stop is done, or the driver broke the rules, or the device says something.
    news: Arc<EventFd>,
}

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const STOPPING: u8 = 2;

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

    fn break_down(&self, fault: Fault) {
        self.counters.faults.add(1);
        *self.fault.lock().expect("no panic while it is held") = Some(fault);
        self.needs_reset.store(true, Ordering::Release);
        self.call_for_reset();
        self.tell();
    }

    /// The interrupt that goes with DEVICE_NEEDS_RESET (virtio 1.2 §2.1.2).
    fn call_for_reset(&self) {
        self.counters.interrupts.add(1);
        self.interrupt.config();
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
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
    Quit,
}

/// The handle of a device's thread. Dropping it stops the device and ends the thread.
pub(crate) struct Worker {
    commands: Sender<Command>,
    wake: EventFd,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Option<Box<dyn VirtioDevice>>>>,
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
        let (commands, received) = channel();
        let inbox = Inbox { commands: received, wake: wake.try_clone()? };
        let thread = Thread::new(device, ram, kicks, Arc::clone(&shared), inbox)?;
        let name: String = format!("vq-{name}").chars().take(NAME_LEN).collect();
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_LEN).spawn(|| thread.run())?;
        Ok(Self { commands, wake, shared, thread: Some(thread) })
    }

    /// The device neither runs nor finishes what it had.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.is_gone() || self.shared.activity.load(Ordering::Acquire) == IDLE
    }

    /// Starts an idle device.
    pub(crate) fn start(&self, features: u64, queues: QueueStates) {
        self.shared.activity.store(RUNNING, Ordering::Release);
        self.send(Command::Start { features, queues });
        if self.shared.is_gone() {
            self.shared.call_for_reset();
        }
    }

    /// Asks a running device to stop for a reset. There is news when it has, and [`is_idle`](Self::is_idle) then.
    pub(crate) fn begin_reset(&self) {
        self.shared.activity.store(STOPPING, Ordering::Release);
        self.send(Command::Stop { states: None });
        if self.shared.is_gone() {
            self.shared.interrupt.reset();
            self.shared.tell();
        }
    }

    /// Asks a running device to stop, to go on later. When it has, its queues come, and there is news. If they never come, the
    /// thread has gone.
    pub(crate) fn begin_stop(&self) -> Receiver<QueueStates> {
        self.shared.activity.store(STOPPING, Ordering::Release);
        let (states, received) = channel();
        self.send(Command::Stop { states: Some(states) });
        if self.shared.is_gone() {
            self.shared.tell();
        }
        received
    }

    /// Tells a running device that its driver has written the configuration space.
    pub(crate) fn config_written(&self) {
        if !self.shared.config_written.swap(true, Ordering::SeqCst) {
            let _ = self.wake.write(1);
        }
    }

    /// Stops the device, ends the thread and gives the device back. `None` if the thread has panicked, and the device is gone.
    pub(crate) fn into_device(mut self) -> Option<Box<dyn VirtioDevice>> {
        self.quit()
    }

    fn quit(&mut self) -> Option<Box<dyn VirtioDevice>> {
        let thread = self.thread.take()?;
        self.send(Command::Quit);
        thread.join().ok().flatten()
    }

    fn send(&self, command: Command) {
        // The thread lives as long as this handle; if it has panicked, nobody is there to obey.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.quit();
    }
}
