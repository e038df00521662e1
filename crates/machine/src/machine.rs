//! A machine that exists, and its event loop.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberId, SubscriberOps};
use tracing::info;
use vmm_kvm::Vm;
use vmm_vcpu::End;

use crate::event_loop::{Message, Source};
use crate::vcpus::Vcpus;
use crate::{Ending, Error};

/// A virtual machine, with the threads of its vCPUs. Dropping it stops them.
pub struct Machine {
    // In this order: the threads end before what they use.
    pub(crate) vcpus: Vcpus,
    pub(crate) events: EventManager<Source>,
    pub(crate) console: SubscriberId,
    pub(crate) announcement: Option<String>,
    pub(crate) messages: Receiver<Message>,
    pub(crate) load_time: Duration,
    pub(crate) _vm: Vm,
}

impl Machine {
    /// The name of the pty that the serial console is, if it is one.
    pub fn serial_name(&self) -> Option<&str> {
        self.announcement.as_deref()
    }

    /// Runs the guest until it ends or somebody ends it, and stops all threads. `started` is when the
    /// process began, for the log.
    ///
    /// # Errors
    /// A vCPU or the event loop failed.
    pub fn run(mut self, started: Instant) -> Result<Ending, Error> {
        self.vcpus.resume();
        let (total, load) = (started.elapsed().as_micros(), self.load_time.as_micros());
        info!("first KVM_RUN after {total} us, of which kernel file {load} us");
        let ending = self.wait_for_ending();
        self.vcpus.stop();
        let ending = ending?;
        if !matches!(ending, Ending::Crashed(_)) {
            info!("the machine has ended: {ending}");
        }
        if waits_for_output(&ending) {
            return self.drain(ending);
        }
        Ok(ending)
    }

    fn wait_for_ending(&mut self) -> Result<Ending, Error> {
        loop {
            self.events.run().map_err(Error::EventLoop)?;
            while let Ok(message) = self.messages.try_recv() {
                let ending = match message {
                    Message::Wake => {
                        self.vcpus.wake();
                        None
                    }
                    Message::VcpuEnded => self.vcpu_ending()?,
                    other => ending_of(other),
                };
                if let Some(ending) = ending {
                    return Ok(ending);
                }
            }
        }
    }

    /// The machine's end, if a vCPU brought it.
    fn vcpu_ending(&mut self) -> Result<Option<Ending>, Error> {
        let mut ending = None;
        while let Some(end) = self.vcpus.take_ended() {
            ending = match end? {
                End::Power(power) => Some(Ending::Guest(power)),
                End::Halted => Some(Ending::Halted),
                End::Crashed(crash) => Some(Ending::Crashed(crash)),
                // By our own order, never on its own.
                End::Stopped => ending,
            };
        }
        Ok(ending)
    }

    /// Gives what the guest printed last to whoever reads it, for as long as that takes. A signal still ends
    /// the monitor.
    fn drain(mut self, ending: Ending) -> Result<Ending, Error> {
        while !self.is_drained() {
            self.events.run().map_err(Error::EventLoop)?;
            if let Some(other) = self.messages.try_iter().find_map(ending_of) {
                return Ok(other);
            }
        }
        Ok(ending)
    }

    fn is_drained(&mut self) -> bool {
        match self.events.subscriber_mut(self.console) {
            Ok(Source::Console(console)) => console.is_drained(),
            _ => true,
        }
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("vcpus", &self.vcpus).finish_non_exhaustive()
    }
}

/// The guest's own end is told after its last words; the user's wish is granted at once.
fn waits_for_output(ending: &Ending) -> bool {
    matches!(ending, Ending::Guest(_) | Ending::Halted | Ending::Crashed(_))
}

/// The end that a message asks for by itself.
fn ending_of(message: Message) -> Option<Ending> {
    match message {
        Message::Quit => Some(Ending::Quit),
        Message::OutputGone => Some(Ending::OutputGone),
        Message::Signal(signal) => Some(Ending::Signal(signal)),
        Message::Wake | Message::VcpuEnded => None,
    }
}
