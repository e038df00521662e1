//! A machine that exists, and its event loop.

use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberId, SubscriberOps};
use tracing::info;
use vmm_config::Expect;
use vmm_kvm::{VcpuReport, Vm};
use vmm_memory::GuestRam;
use vmm_vcpu::{End, Summary};

use crate::deadline::Deadline;
use crate::diagnostics::Watching;
use crate::error::Tried;
use crate::event_loop::{Message, Source};
use crate::handler::GuestEnd;
use crate::vcpus::Vcpus;
use crate::{Ending, Error, expect};

/// A virtual machine, with the threads of its vCPUs. Dropping it stops them.
pub struct Machine {
    // In this order: the threads end before what they use.
    pub(crate) vcpus: Vcpus,
    pub(crate) events: EventManager<Source>,
    pub(crate) console: SubscriberId,
    pub(crate) stream: Option<SubscriberId>,
    pub(crate) announcement: Option<String>,
    pub(crate) messages: (Sender<Message>, Receiver<Message>),
    pub(crate) load_time: Duration,
    pub(crate) watching: Watching,
    pub(crate) ram: GuestRam,
    pub(crate) expect: Option<Expect>,
    pub(crate) _vm: Vm,
}

/// What became of a machine.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub ending: Ending,
    /// Its exits, if they were counted.
    pub exits: Option<Summary>,
}

impl Machine {
    /// The name of the pty that the serial console is, if it is one.
    pub fn serial_name(&self) -> Option<&str> {
        self.announcement.as_deref()
    }

    /// Ends the run when this time is over, whatever the guest does. Counted from now.
    ///
    /// # Errors
    /// The host gives no timer.
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        let deadline = Deadline::start(timeout, self.messages.0.clone()).tried("timerfd of the timeout")?;
        self.events.add_subscriber(Source::Deadline(deadline));
        Ok(())
    }

    /// Runs the guest until it ends or somebody ends it, and stops all threads. `started` is when the
    /// process began, for the log.
    ///
    /// # Errors
    /// A vCPU or the event loop failed.
    pub fn run(mut self, started: Instant) -> Result<Run, Error> {
        self.vcpus.resume();
        let (total, load) = (started.elapsed().as_micros(), self.load_time.as_micros());
        info!("first KVM_RUN after {total} us, of which kernel file {load} us");
        let ending = self.wait_for_ending();
        self.vcpus.stop();
        let exits = self.watching.summary();
        let ending = ending?;
        if !ending.is_told() {
            info!("the machine has ended: {ending}");
        }
        let ending = if ending.waits_for_output() { self.drain(ending)? } else { ending };
        Ok(Run { ending, exits })
    }

    fn wait_for_ending(&mut self) -> Result<Ending, Error> {
        loop {
            self.events.run().map_err(Error::EventLoop)?;
            while let Ok(message) = self.messages.1.try_recv() {
                let ending = match message {
                    Message::Wake => {
                        self.vcpus.wake();
                        None
                    }
                    Message::VcpuEnded => self.vcpu_ending()?,
                    Message::TimeIsUp => Some(Ending::TimeIsUp(self.vcpus.reports())),
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
                End::Asked(GuestEnd::Power(power)) => Some(Ending::Guest(power)),
                End::Asked(GuestEnd::Exit(code)) => Some(Ending::Exit(code)),
                End::Halted(report) => Some(self.halted(&report)),
                End::Crashed(crash) => Some(Ending::Crashed(crash)),
                // By our own order, never on its own.
                End::Stopped => ending,
            };
        }
        Ok(ending)
    }

    /// A guest that halts for ever must be as expected.
    fn halted(&self, report: &VcpuReport) -> Ending {
        let mismatches = match &self.expect {
            Some(expect) => expect::mismatches(expect, report, self.ram.memory()),
            None => Vec::new(),
        };
        if mismatches.is_empty() { Ending::Halted } else { Ending::Unexpected(mismatches) }
    }

    /// Gives what the guest printed last to whoever reads it, for as long as that takes. A signal still ends
    /// the monitor.
    fn drain(&mut self, ending: Ending) -> Result<Ending, Error> {
        while !self.is_drained() {
            self.events.run().map_err(Error::EventLoop)?;
            if let Some(other) = self.messages.1.try_iter().find_map(ending_of) {
                return Ok(other);
            }
        }
        Ok(ending)
    }

    fn is_drained(&mut self) -> bool {
        let sources = [Some(self.console), self.stream];
        sources.into_iter().flatten().all(|id| match self.events.subscriber_mut(id) {
            Ok(Source::Console(console)) => console.is_drained(),
            Ok(Source::Stream(stream)) => stream.is_drained(),
            _ => true,
        })
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("vcpus", &self.vcpus).finish_non_exhaustive()
    }
}

/// The end that a message asks for by itself.
fn ending_of(message: Message) -> Option<Ending> {
    match message {
        Message::Quit => Some(Ending::Quit),
        Message::OutputGone => Some(Ending::OutputGone),
        Message::Signal(signal) => Some(Ending::Signal(signal)),
        Message::TimeIsUp => Some(Ending::TimeIsUp(Vec::new())),
        Message::Wake | Message::VcpuEnded => None,
    }
}
