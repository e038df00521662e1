//! The handle of a device's thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use vmm_bus::EventFd;
use vmm_memory::GuestRam;

use crate::{Session, StartError, VirtioDevice};

mod shared;
mod thread;

use shared::{Command, IDLE, Inbox, RUNNING, STOPPING};
pub(crate) use shared::{QueueStates, Shared};
pub use thread::DEVICE_CALLS;
use thread::{Thread, Watches};

/// Stack size of a device's thread in bytes. The deepest calls, file I/O, need a few KiB.
const STACK_LEN: usize = 256 << 10;
/// Maximum length of a thread's name on Linux in bytes (TASK_COMM_LEN without its NUL).
const NAME_LEN: usize = 15;

/// The handle of a device's thread. Dropping it stops the device and joins the thread.
pub(crate) struct Worker {
    commands: Sender<Command>,
    wake: EventFd,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Option<Box<dyn VirtioDevice>>>>,
}

impl Worker {
    /// Starts a thread for `device`, which is idle. `kicks` are the queues' notifications, in order.
    pub(crate) fn spawn(
        name: &str,
        device: Box<dyn VirtioDevice>,
        ram: GuestRam,
        kicks: Vec<Arc<EventFd>>,
        shared: Arc<Shared>,
    ) -> Result<Self, StartError> {
        let (devices, given) = channel();
        match Self::spawn_for(given, name, ram, kicks, shared) {
            Ok(worker) => {
                // The thread is waiting for it.
                let _ = devices.send(device);
                Ok(worker)
            }
            Err(error) => Err(StartError { error, device }),
        }
    }

    /// Starts a thread for the device that will be `given`: one that can't be started must not own the device.
    fn spawn_for(
        given: Receiver<Box<dyn VirtioDevice>>,
        name: &str,
        ram: GuestRam,
        kicks: Vec<Arc<EventFd>>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let wake = EventFd::new()?;
        let (commands, received) = channel();
        let inbox = Inbox { commands: received, wake: wake.try_clone()? };
        let watches = Watches::new(&wake)?;
        let name: String = format!("vq-{name}").chars().take(NAME_LEN).collect();
        let theirs = Arc::clone(&shared);
        let body = move || Thread::new(given.recv().ok()?, ram, kicks, theirs, (inbox, watches)).run();
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_LEN).spawn(body)?;
        Ok(Self { commands, wake, shared, thread: Some(thread) })
    }

    /// Whether the device neither runs nor finishes requests.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.is_gone() || self.shared.activity.load(Ordering::Acquire) == IDLE
    }

    /// Starts an idle device.
    pub(crate) fn start(&self, features: u64, queues: QueueStates) {
        self.shared.activity.store(RUNNING, Ordering::Release);
        self.send(Command::Start { features, queues });
        if self.shared.is_gone() {
            self.shared.raise_config();
        }
    }

    /// Asks a running device to stop for a reset. When it has stopped, `news` is written and
    /// [`is_idle`](Self::is_idle).
    pub(crate) fn begin_reset(&self) {
        self.shared.activity.store(STOPPING, Ordering::Release);
        self.send(Command::Stop { states: None });
        if self.shared.is_gone() {
            self.shared.interrupt.reset();
            self.shared.signal_news();
        }
    }

    /// Asks a running device to suspend. When it has stopped, its queues are sent and `news` is written. If
    /// the channel is disconnected, the thread has gone.
    pub(crate) fn begin_stop(&self) -> Receiver<QueueStates> {
        self.shared.activity.store(STOPPING, Ordering::Release);
        let (states, received) = channel();
        self.send(Command::Stop { states: Some(states) });
        if self.shared.is_gone() {
            self.shared.signal_news();
        }
        received
    }

    /// Notifies a running device that its driver has written to the configuration space.
    pub(crate) fn config_written(&self) {
        if !self.shared.config_written.swap(true, Ordering::SeqCst) {
            let _ = self.wake.write(1);
        }
    }

    /// Calls `act` on the device's thread, with the session if a driver uses the device. `news` is written
    /// when the result has been sent. If the channel is disconnected, the thread has panicked.
    pub(crate) fn with_device<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut dyn VirtioDevice, Option<&mut Session>) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (results, received) = channel();
        self.send(Command::Do(Box::new(move |device, session| {
            // If the receiver has been dropped, that is fine.
            let _ = results.send(act(device, session));
        })));
        if self.shared.is_gone() {
            self.shared.signal_news();
        }
        received
    }

    /// Stops the device, joins the thread and returns the device; `None` if the thread has panicked.
    pub(crate) fn into_device(mut self) -> Option<Box<dyn VirtioDevice>> {
        self.quit()
    }

    fn quit(&mut self) -> Option<Box<dyn VirtioDevice>> {
        let thread = self.thread.take()?;
        self.send(Command::Quit);
        thread.join().ok().flatten()
    }

    fn send(&self, command: Command) {
        // The thread lives as long as this handle. If it has panicked, the send fails; that is fine.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.quit();
    }
}
