//! A machine that exists, and its event loop.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberId, SubscriberOps};
use tracing::{debug, info, warn};
use vmm_bus::Power;
use vmm_config::Expect;
use vmm_devices::{Output, PowerManagement};
use vmm_hostio::terminal;
use vmm_kvm::{VcpuReport, Vm};
use vmm_memory::GuestRam;
use vmm_vcpu::End;

use crate::console::{Console, Consoles};
use crate::deadline::Deadline;
use crate::diagnostics::{ExitReport, Stream, Watching};
use crate::error::Tried;
use crate::event_loop::{Message, Source};
use crate::handler::GuestEnd;
use crate::inputs::{Files, Inputs};
use crate::pause::RunState;
use crate::vcpus::Vcpus;
use crate::virtio::VirtioDevices;
use crate::{DeviceLog, Ending, Error, Messages, MetricsFile, expect, plan};

/// A virtual machine, with the threads of its vCPUs. Dropping it stops them.
pub struct Machine {
    // In this order: the threads end before what they use.
    pub(crate) vcpus: Vcpus,
    pub(crate) virtio: VirtioDevices,
    /// What the next machine starts with, too.
    pub(crate) files: Files,
    /// What COM1 has printed.
    pub(crate) printed: Arc<Output>,
    pub(crate) metrics: Option<MetricsFile>,
    pub(crate) device_log: DeviceLog,
    pub(crate) events: EventManager<Source>,
    pub(crate) consoles: Vec<SubscriberId>,
    pub(crate) stream: SubscriberId,
    pub(crate) ptys: Vec<(String, String)>,
    pub(crate) messages: (Sender<Message>, Receiver<Message>),
    pub(crate) load_time: Duration,
    pub(crate) watching: Watching,
    pub(crate) power: Option<Arc<PowerManagement>>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) shutting_down: bool,
    pub(crate) state: RunState,
    pub(crate) started: Instant,
    pub(crate) ram: GuestRam,
    pub(crate) expect: Option<Expect>,
    pub(crate) _vm: Vm,
}

/// How long a guest may take to shut down, unless told otherwise: a third of what service managers give before they kill.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// What became of a machine.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub ending: Ending,
    /// The guest wants to start anew: it has reset the machine, and nobody had asked it to shut down. With this the next
    /// machine goes on: what the guest has written, and what nobody else can have in between.
    pub restart: Option<Inputs>,
    /// Its exits, if they were counted.
    pub exits: Option<Box<ExitReport>>,
    /// What its devices have had in the log, for the machine that follows.
    pub device_log: DeviceLog,
}

impl Machine {
    /// The consoles that are new ptys, and not those of the machine before: what each is called, `serial` or the id of a device, and the name of its pty.
    pub fn ptys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ptys.iter().map(|(console, pty)| (console.as_str(), pty.as_str()))
    }

    /// Ends the run when this time is over, whatever the guest does. Counted from now.
    ///
    /// # Errors
    /// The host gives no timer.
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        self.start_timer(timeout, Message::TimeIsUp)
    }

    /// How long a guest whose power button SIGTERM has pressed may take to shut down.
    pub fn set_shutdown_timeout(&mut self, timeout: Duration) {
        self.shutdown_timeout = timeout;
    }

    /// Writes what the devices have counted to `file` at the end, and on SIGUSR1.
    pub fn set_metrics(&mut self, file: MetricsFile) {
        self.metrics = Some(file);
    }

    /// Has the event loop write what of `messages` had to wait for its reader. Those that go to [`Diagnostics::lines`] are
    /// written anyway.
    ///
    /// [`Diagnostics::lines`]: crate::Diagnostics::lines
    pub fn attach(&mut self, messages: Messages) {
        let stream = Stream::new(messages, self.messages.0.clone());
        self.events.add_subscriber(Source::Stream(stream));
    }

    /// Takes into account what the devices of the machine before this one had in the log.
    pub fn set_device_log(&mut self, log: DeviceLog) {
        self.device_log = log;
    }

    fn write_metrics(&mut self) {
        let uptime = self.started.elapsed();
        match self.metrics.as_ref().map(|file| file.write(uptime, &self.virtio)) {
            Some(Err(error)) => warn!("{error}"),
            Some(Ok(())) => {}
            None => info!("SIGUSR1: there is no --metrics to write to"),
        }
    }

    /// The last counters, which nobody could ask for again.
    fn finish_metrics(&mut self) {
        let Some(file) = self.metrics.clone() else { return };
        // What SIGUSR1 has asked for comes first.
        let before = file.finish();
        let written =
            before.and(file.write(self.started.elapsed(), &self.virtio)).and_then(|()| file.finish());
        if file.is_news(&written)
            && let Err(error) = written
        {
            warn!("{error}");
        }
    }

    fn start_timer(&mut self, timeout: Duration, word: Message) -> Result<(), Error> {
        let timer = Deadline::start(timeout, word, self.messages.0.clone()).tried("timerfd of a timeout")?;
        self.events.add_subscriber(Source::Deadline(timer));
        Ok(())
    }

    /// Runs the guest until it ends or somebody ends it, and stops all threads. `started` is when the
    /// process began, for the log.
    ///
    /// # Errors
    /// A console's file can't be emptied, and the guest wasn't started; a vCPU or the event loop failed.
    pub fn run(mut self, started: Instant) -> Result<Run, Error> {
        self.begin_consoles()?;
        self.vcpus.resume();
        let (total, load) = (started.elapsed().as_micros(), self.load_time.as_micros());
        info!("first KVM_RUN after {total} us, of which kernel file {load} us");
        let ending = self.wait_for_ending();
        self.vcpus.stop();
        // What was said last, such as by the fault for which the guest resets its machine.
        self.virtio.tell_news(&mut self.device_log);
        self.finish_metrics();
        let exits = self.watching.report().map(Box::new);
        let ending = ending?;
        if !ending.is_told() {
            info!("the machine has ended: {ending}");
        }
        let ending = if ending.waits_for_output() { self.drain(ending)? } else { ending };
        let ending = self.overruled(ending);
        let wants_restart = matches!(ending, Ending::Guest(Power::Reset)) && !self.shutting_down;
        let device_log = std::mem::take(&mut self.device_log);
        let restart = wants_restart.then(|| self.into_inputs());
        Ok(Run { ending, restart, exits, device_log })
    }

    /// Only now, since nothing refuses the start any more: a console's file has what was in it until here.
    fn begin_consoles(&mut self) -> Result<(), Error> {
        let mut begun = Ok(());
        self.each_console(|console| {
            if begun.is_ok() {
                begun = console.begin();
            }
        });
        Ok(begun?)
    }

    /// What outlives the machine.
    fn into_inputs(mut self) -> Inputs {
        let mut opened = Vec::new();
        for id in std::mem::take(&mut self.consoles) {
            if let Ok(Source::Console(console)) = self.events.remove_subscriber(id) {
                opened.push(*console);
            }
        }
        let consoles = Consoles { opened, printed: Some(self.printed) };
        Inputs { files: self.files, devices: self.virtio.into_devices(), consoles }
    }

    /// A reset may be followed by a restart, which must not forget what the user asked for in the same moment.
    fn overruled(&self, ending: Ending) -> Ending {
        if !matches!(ending, Ending::Guest(Power::Reset)) {
            return ending;
        }
        // A timeout is for the next run, which has no time left.
        let users = |ending: &Ending| !matches!(ending, Ending::TimeIsUp(_));
        self.messages.1.try_iter().filter_map(ending_of).find(users).unwrap_or(ending)
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
                    Message::DeviceNews => {
                        self.virtio.tell_news(&mut self.device_log);
                        // A vCPU that wrote a reset asks whether it still must wait.
                        self.vcpus.wake();
                        self.finish_pause();
                        None
                    }
                    Message::Metrics => {
                        self.write_metrics();
                        None
                    }
                    Message::Continued => {
                        terminal::continued();
                        self.each_console(Console::resized);
                        None
                    }
                    Message::Resized => {
                        self.each_console(Console::resized);
                        None
                    }
                    Message::VcpuEnded => self.vcpu_ending()?,
                    Message::TimeIsUp => {
                        // All at one moment, so that what they say of each other fits together.
                        self.vcpus.pause();
                        Some(Ending::TimeIsUp(self.vcpus.reports()))
                    }
                    Message::Signal(signal) => self.signalled(signal)?,
                    Message::PowerButton => {
                        self.press_power_button();
                        None
                    }
                    Message::Pause => {
                        self.toggle_pause();
                        None
                    }
                    Message::Status => {
                        let status = self.status();
                        self.say(&status);
                        None
                    }
                    other => ending_of(other),
                };
                if let Some(ending) = ending {
                    return Ok(ending);
                }
            }
        }
    }

    /// The first SIGTERM asks the guest to shut down, if it runs and listens. Every other signal, and what comes later, is an end.
    fn signalled(&mut self, signal: i32) -> Result<Option<Ending>, Error> {
        let is_first = !std::mem::replace(&mut self.shutting_down, true);
        let runs = self.state == RunState::Running;
        if is_first && runs && signal == libc::SIGTERM && self.press_power_button() {
            info!(
                "SIGTERM: the power button is pressed; the guest has {:?} to shut down",
                self.shutdown_timeout
            );
            self.start_timer(self.shutdown_timeout, Message::ShutdownTimeIsUp)?;
            return Ok(None);
        }
        Ok(Some(Ending::Signal(signal)))
    }

    /// Whether the guest listens to the power button.
    fn press_power_button(&mut self) -> bool {
        let listens = self.power.as_ref().is_some_and(|power| power.press_power_button());
        if !listens {
            self.say("the guest doesn't listen to the power button");
        }
        listens
    }

    /// In one line.
    fn status(&self) -> String {
        let memory = plan::shown_len(self.ram.regions().map(|region| region.len).sum());
        let (vcpus, seconds) = (self.vcpus.count(), self.started.elapsed().as_secs());
        let plural = if vcpus == 1 { "" } else { "s" };
        let paused = if self.state == RunState::Running { "" } else { ", paused" };
        format!("{vcpus} vCPU{plural}, {memory} of memory, up {seconds} s{paused}")
    }

    /// Says something to the person at the terminal, if there is one.
    pub(crate) fn say(&mut self, text: &str) {
        self.each_console(|console| console.say(text));
    }

    fn each_console(&mut self, mut act: impl FnMut(&mut Console)) {
        for id in &self.consoles {
            if let Ok(Source::Console(console)) = self.events.subscriber_mut(*id) {
                act(console);
            }
        }
    }

    /// The machine's end, if a vCPU brought it.
    fn vcpu_ending(&mut self) -> Result<Option<Ending>, Error> {
        let mut ending = None;
        while let Some((index, end)) = self.vcpus.take_ended() {
            debug!("vcpu{index} has ended");
            ending = match end? {
                End::Asked(GuestEnd::Power(power)) => Some(Ending::Guest(power)),
                End::Asked(GuestEnd::Panicked) => Some(Ending::Panicked),
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
        self.each_console(Console::hurry);
        while !self.is_drained() {
            self.events.run().map_err(Error::EventLoop)?;
            if let Some(other) = self.messages.1.try_iter().find_map(ending_of) {
                return Ok(other);
            }
        }
        Ok(ending)
    }

    fn is_drained(&mut self) -> bool {
        // A trace is as much the guest's as what it prints; other messages have their time when the monitor ends.
        let trace = self.watching.has_lines().then_some(&self.stream);
        let mut sources = self.consoles.iter().chain(trace);
        sources.all(|id| match self.events.subscriber_mut(*id) {
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
        Message::ShutdownTimeIsUp => Some(Ending::Signal(libc::SIGTERM)),
        Message::TimeIsUp => Some(Ending::TimeIsUp(Vec::new())),
        Message::Wake
        | Message::Metrics
        | Message::Resized
        | Message::Continued
        | Message::DeviceNews
        | Message::VcpuEnded
        | Message::PowerButton
        | Message::Pause
        | Message::Status => None,
    }
}
