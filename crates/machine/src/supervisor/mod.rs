//! The supervisor: it owns what outlives a machine (the event loop, the signals, the consoles, the timeout and the log's limits)
//! and runs one machine after the other.
//!
//! ```text
//!          build                resume              the guest or the user           stop
//!   empty -------> configured -------> running <--> paused -------------> stopped ------> empty
//!     ^                                                                      |
//!     +------------- after a reset: the next machine, with the same files ---+
//! ```
//! Work that may block on a file is a [`Job`](crate::job::Job): opening files, reading a kernel, stopping a disk. The jobs have a
//! [thread](crate::worker::Worker) that exists from the start, so at the end it doesn't matter whether the host can create one. So the
//! event loop keeps running, and the user can end the monitor even if the host's storage never answers.

mod closing;
mod commands;
mod confining;
mod consoles;
mod driver_hint;
mod keys_and_signals;
mod last_reports;
mod offloaded;
mod patience;
mod requests;
mod run;
mod running;
mod snapshots;
mod snapshotting;
mod waiting;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use event_manager::SubscriberId;
use vmm_bus::EventFd;
use vmm_config::{Config, Event, OnReboot};
use vmm_hostio::crash;
use vmm_hostio::terminal::RawMode;
use vmm_sandbox::Needs;

pub use offloaded::Offloaded;
pub use requests::Commander;
pub use run::{Run, RunError};

use crate::build_error::BuildError;
use crate::console::{self, Console, OpenTargets};
use crate::deadline::Deadline;
use crate::diagnostics::MessageWriter;
use crate::ending::TimeoutPhase;
use crate::error::HostContext;
use crate::event_loop::{EventFdSource, EventLoop, Source};
use crate::events::EventSink;
use crate::job::Progress;
use crate::keeper_watch::KeeperWatch;
use crate::machine::Machine;
use crate::message::{Key, Message};
use crate::open_host::OpenHost;
use crate::run_state::RunState;
use crate::signals::Signals;
use crate::step_times::StepTimes;
use crate::supervisor_handles::SupervisorHandles;
use crate::virtio;
use crate::worker::Worker;
use crate::{
    About, DeviceLog, Diagnostics, Ending, Error, Inputs, Kinds, Messages, MetricsFile, Plan, Restore,
};
use driver_hint::DriverHint;
use last_reports::LastReports;
use requests::Requests;
use snapshotting::Snapshotting;

/// The default time for a guest to shut down: a third of what service managers allow before they kill (systemd: 90 s).
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// The timeouts of a run.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// When the run ends, whatever the guest does.
    pub run: Option<Instant>,
    /// How long the guest may take to shut down after SIGTERM has pressed its power button.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { run: None, shutdown: SHUTDOWN_TIMEOUT }
    }
}

/// The parts of the first machine, and the options of the run.
#[derive(Debug)]
pub struct Start {
    /// The config, from which the machines after a reset are planned.
    pub config: Arc<Config>,
    /// The available kinds of devices.
    pub kinds: Kinds<'static>,
    /// The first machine's plan.
    pub plan: Plan,
    /// The first machine's open files and devices.
    pub inputs: Inputs,
    /// What to trace of the guest.
    pub diagnostics: Diagnostics,
    /// The file for the counters, written at the end and on SIGUSR1.
    pub metrics: Option<MetricsFile>,
    /// The queue for the names of new ptys.
    pub announcements: Option<Messages>,
    /// Told what happens to the machines.
    pub events: EventSink,
    /// What a snapshot says of the program and the config.
    pub about: About,
    /// The snapshot with which the first machine begins, whose plan is `plan`.
    pub restore: Option<Restore>,
    /// Other threads of the run, which are started when the process is confined.
    pub services: Vec<Service>,
    /// Don't start the first machine: a [`Command::Resume`](vmm_config::Command::Resume) starts it.
    pub paused: bool,
    /// Called after each reset, before the next machine starts, with the number of resets so far.
    pub restarted: fn(u32),
    /// Confines the process. Called once, before the first machine is built, when everything that the run opens is open: files, KVM,
    /// consoles. The calling thread is then the only one: the run ends with an error if the caller has started others.
    pub confine: Option<Confine>,
}

/// See [`Start::confine`]. It gets what the run needs of the host after that.
pub struct Confine(pub Box<dyn FnOnce(Needs) -> io::Result<()> + Send>);

impl std::fmt::Debug for Confine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Confine")
    }
}

/// A thread besides the run's own, such as that of a control socket.
pub struct Service {
    /// What it needs of the host once the process is confined. Its system calls are its own affair: it isn't part of the main thread's filter.
    pub needs: Needs,
    /// Starts it.
    pub start: Box<dyn FnOnce() -> io::Result<()> + Send>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("needs", &self.needs).finish_non_exhaustive()
    }
}

impl Start {
    /// Opens the files and devices of `config` and plans the first machine. The options have their defaults: no traces, no
    /// counters, and the guest starts at once.
    ///
    /// # Errors
    /// Those of [`Inputs::open`] and [`Plan::new`].
    pub fn new(config: Arc<Config>, kinds: Kinds<'static>) -> Result<Self, Error> {
        let mut inputs = Inputs::open(&config, &kinds)?;
        let plan = Plan::new(&config, &mut inputs)?;
        let about = About::new(&config, std::env::current_dir().unwrap_or_default());
        Ok(Self {
            config,
            kinds,
            plan,
            inputs,
            diagnostics: Diagnostics::default(),
            metrics: None,
            announcements: None,
            events: EventSink::default(),
            about,
            restore: None,
            services: Vec::new(),
            paused: false,
            restarted: |_| {},
            confine: None,
        })
    }
}

/// Runs machines on the event loop of the calling thread. A process has at most one, because it handles the process's signals.
pub struct Supervisor {
    events: EventLoop,
    messages: (Sender<Message>, Receiver<Message>),
    /// The queues whose lines the event loop writes.
    attached: Vec<Messages>,
    consoles: Vec<SubscriberId>,
    device_log: DeviceLog,
    metrics_file: Option<MetricsFile>,
    /// SIGUSR1 was received while no machine existed.
    metrics_due: bool,
    /// SIGUSR1 without a file for the counters has been logged.
    has_refused_metrics: bool,
    /// Ctrl-A p was pressed while no machine existed: the next one is paused, unless it is pressed again.
    pause_due: bool,
    announcements: Option<Messages>,
    /// Told what happens to the machines.
    happenings: EventSink,
    driver_hint: DriverHint,
    shutdown_timeout: Duration,
    shutting_down: bool,
    /// An end that was requested while a machine was stopping. It overrides a restart.
    requested_ending: Option<Ending>,
    requests: Requests,
    /// A snapshot that was requested and isn't written yet.
    snapshot: Option<Snapshotting>,
    /// The jobs' thread.
    worker: Worker,
    /// Written when a job is done.
    job_done: Arc<EventFd>,
    /// Written when a vCPU's thread has exited.
    vcpu_ended: Arc<EventFd>,
    /// Written by virtio devices; see [`SupervisorHandles`].
    news: Arc<EventFd>,
    /// When the process started, for the log.
    started: Instant,
    /// The steps of the start. None once the first guest has begun.
    times: Option<StepTimes>,
    /// In raw mode from the first machine's start to the last one's end.
    terminal: Option<RawMode>,
}

/// A machine whose vCPUs have stopped, with its devices.
struct StoppedMachine {
    run: Run,
    /// `None` if a vCPU couldn't be stopped.
    machine: Option<Machine>,
}

impl Supervisor {
    /// Blocks the signals that would kill or stop the process, except those of crashes and those that it ignores, and receives them as
    /// events. Call it before starting other threads, which inherit the signal mask. Starts the thread of the jobs. `started` is when
    /// the process started.
    ///
    /// # Errors
    /// The host is out of descriptors, watches, threads or memory.
    pub fn new(started: Instant, timeouts: Timeouts) -> Result<Self, Error> {
        crash::restore_terminal().context("signal handlers")?;
        let (messages, received) = channel();
        let mut events = EventLoop::new()?;
        let signals = Signals::block(messages.clone()).context("signals")?;
        events.add(Source::Signals(signals))?;
        let mut eventfd = |what, message| {
            let event = EventFd::new().map(Arc::new).context(what)?;
            let source = EventFdSource::new(Arc::clone(&event), message, messages.clone());
            events.add(Source::EventFd(source))?;
            Ok::<_, Error>(event)
        };
        let job_done = eventfd("eventfd of jobs", Message::JobDone)?;
        let vcpu_ended = eventfd("eventfd of the vCPUs", Message::VcpuEnded)?;
        let news = eventfd("eventfd of the devices", Message::DeviceNews)?;
        let requested = eventfd("eventfd of requests", Message::RequestsPending)?;
        // After the signals are blocked: it inherits that.
        let worker = Worker::new().context("thread of the jobs")?;
        let mut supervisor = Self {
            events,
            messages: (messages, received),
            attached: Vec::new(),
            consoles: Vec::new(),
            device_log: DeviceLog::default(),
            metrics_file: None,
            metrics_due: false,
            has_refused_metrics: false,
            pause_due: false,
            announcements: None,
            happenings: EventSink::default(),
            driver_hint: DriverHint::default(),
            shutdown_timeout: timeouts.shutdown,
            shutting_down: false,
            requested_ending: None,
            requests: Requests::new(requested),
            snapshot: None,
            worker,
            job_done,
            vcpu_ended,
            news,
            started,
            times: Some(StepTimes::since(started)),
            terminal: None,
        };
        if let Some(end) = timeouts.run {
            let left = end.saturating_duration_since(Instant::now());
            supervisor.start_timer(left, Message::RunTimedOut)?;
        }
        Ok(supervisor)
    }

    /// Has the event loop write the queued lines of `messages` when the target becomes writable. Lines that this thread pushes
    /// are still written at once if possible.
    ///
    /// # Errors
    /// The host is out of watches or memory.
    pub fn attach(&mut self, messages: &Messages) -> Result<(), Error> {
        if !self.attached.iter().any(|other| other.is_same(messages)) {
            messages.belong_to_this_thread();
            self.attached.push(messages.clone());
            let stream = MessageWriter::new(messages.clone(), self.messages.0.clone());
            self.events.add(Source::MessageWriter(stream))?;
        }
        Ok(())
    }

    /// Builds and runs the first machine, and with `"on_reboot": "restart"` another one after each reset.
    ///
    /// # Errors
    /// The host lacks KVM, memory or another resource, or a file is damaged: nothing is left behind. Or a vCPU or the event loop
    /// failed.
    pub fn run(&mut self, start: Start) -> Result<Run, RunError> {
        let run = self.run_machines(start);
        self.close_consoles();
        run
    }

    fn run_machines(&mut self, start: Start) -> Result<Run, RunError> {
        let (config, kinds) = (Arc::clone(&start.config), start.kinds);
        let Start { paused, restarted, .. } = start;
        let (mut machine, handles) = match self.start_confined(start)? {
            Offloaded::Done(started) => started,
            Offloaded::Ended(ending) => return Ok(Run { ending, exits: None, losses: Vec::new() }),
        };
        let mut restarts = 0_u32;
        let mut starts = !paused;
        loop {
            let StoppedMachine { mut run, machine: stopped } = self.run_machine(machine, starts)?;
            let wants_restart = run.ending.is_reset() && !self.shutting_down;
            let restarts_it = wants_restart && config.on_reboot == OnReboot::Restart;
            let stopped = match stopped {
                Some(stopped) if restarts_it => stopped,
                Some(stopped) => {
                    run.losses = self.close(stopped);
                    return Ok(run);
                }
                None => return Ok(run),
            };
            self.happenings.tell(Event::Reset);
            // A guest that was never started isn't started by a reset.
            starts = stopped.state != RunState::Configured;
            let (config, handles) = (Arc::clone(&config), handles.clone());
            let (last, reports) = LastReports::of(&stopped);
            let rebuild =
                move |progress: &Progress| stopped.rebuild(&config, &kinds, handles, (progress, &reports));
            let mut job = self.start_job("restarting", rebuild);
            let (next, lines) = match self.offloaded(&mut job, TimeoutPhase::Restarting) {
                Ok(Offloaded::Done(rebuilt)) => {
                    let losses = last.log(&mut self.device_log);
                    match rebuilt {
                        // Not a loss yet: a device that has lost something reports it again at the end.
                        Ok(built) => built,
                        Err(BuildError { error, devices }) => {
                            self.close_devices(devices);
                            return Err(RunError { error, losses });
                        }
                    }
                }
                Ok(Offloaded::Ended(ending)) => {
                    let losses = self.abandon_restart(&mut job, last)?;
                    return Ok(Run { ending, exits: run.exits, losses });
                }
                Err(error) => return Err(RunError { error, losses: last.log(&mut self.device_log) }),
            };
            machine = next;
            if let Err(error) = self.move_consoles(lines) {
                return Err(RunError { error, losses: self.close(machine) });
            }
            restarts = restarts.saturating_add(1);
            restarted(restarts);
        }
    }

    /// Opens what the run opens, confines the process, and builds the first machine.
    fn start_confined(&mut self, start: Start) -> Result<Offloaded<(Machine, SupervisorHandles)>, Error> {
        let Start {
            config,
            plan,
            inputs,
            diagnostics,
            metrics,
            announcements,
            events,
            about,
            restore,
            services,
            confine,
            ..
        } = start;
        self.step_done("opening files");
        (self.announcements, self.happenings) = (announcements, events.clone());
        self.device_log.report_to(events);
        let lines = diagnostics.lines.clone().map_or_else(Messages::to_stderr, Ok);
        let lines = lines.context("eventfd of the messages")?;
        self.attach(&lines)?;
        let ends: Vec<_> = console::ends(&config.serial, virtio::consoles(&inputs.devices)).collect();
        let opened = self.offload(move |progress| {
            let host = OpenHost::open()?;
            let _step = progress.begin("opening the consoles".to_owned());
            Ok::<_, Error>((host, OpenTargets::open(ends.into_iter())?))
        })?;
        let (host, targets) = match opened {
            Offloaded::Done(opened) => opened?,
            Offloaded::Ended(ending) => return Ok(Offloaded::Ended(ending)),
        };
        self.step_done("opening KVM and consoles");
        let mut needs = inputs.needs();
        let calls = needs.calls.clone();
        needs.removes.extend(targets.removes());
        needs.removes.extend(self.attached.iter().filter_map(Messages::removes));
        needs.removes.extend(metrics.as_ref().and_then(MetricsFile::removes));
        services.iter().for_each(|service| needs.add(service.needs.clone()));
        if let Some(Confine(confine)) = confine {
            match self.single_threaded(|| confine(needs))? {
                Offloaded::Done(confined) => confined.map_err(Error::Confine)?,
                Offloaded::Ended(ending) => return Ok(Offloaded::Ended(ending)),
            }
            KeeperWatch::new().map(|keeper| self.events.add(Source::KeeperWatch(keeper))).transpose()?;
        }
        self.step_done("walls");
        if let Some(metrics) = &metrics {
            metrics.start().context("thread of the counters")?;
        }
        self.metrics_file = metrics;
        services.into_iter().try_for_each(|service| (service.start)()).context("thread of a service")?;
        let mut handles = SupervisorHandles {
            host: Arc::new(host),
            about: Arc::new(about),
            diagnostics,
            lines,
            is_raw_terminal: false,
            vcpu_ended: Arc::clone(&self.vcpu_ended),
            news: Arc::clone(&self.news),
        };
        let machine = match self.first_machine(plan, (inputs, restore), targets, &mut handles)? {
            Offloaded::Done(machine) => machine,
            Offloaded::Ended(ending) => return Ok(Offloaded::Ended(ending)),
        };
        self.step_done("building");
        let confined = self.confine_main(calls, config.on_reboot == OnReboot::Restart);
        Ok(match self.started(machine, confined)? {
            Offloaded::Done(machine) => Offloaded::Done((machine, handles)),
            Offloaded::Ended(ending) => Offloaded::Ended(ending),
        })
    }

    /// The step `name` of the start is done.
    fn step_done(&mut self, name: &'static str) {
        if let Some(times) = &mut self.times {
            times.add(name);
        }
    }

    /// The machine, if the last `step` of its start is done; otherwise it is dropped.
    fn started(
        &mut self,
        machine: Machine,
        step: Result<Offloaded<()>, Error>,
    ) -> Result<Offloaded<Machine>, Error> {
        match step {
            Ok(Offloaded::Done(())) => Ok(Offloaded::Done(machine)),
            Ok(Offloaded::Ended(ending)) => {
                self.discard(machine);
                Ok(Offloaded::Ended(ending))
            }
            Err(error) => {
                self.discard(machine);
                Err(error)
            }
        }
    }

    /// Builds the first machine and connects the consoles.
    fn first_machine(
        &mut self,
        plan: Plan,
        (inputs, restore): (Inputs, Option<Restore>),
        targets: OpenTargets,
        handles: &mut SupervisorHandles,
    ) -> Result<Offloaded<Machine>, Error> {
        let mut theirs = handles.clone();
        let build = move |progress: &Progress| {
            theirs.is_raw_terminal = plan.is_on_stdio() && io::IsTerminal::is_terminal(&io::stdin());
            let is_raw_terminal = theirs.is_raw_terminal;
            let built = Machine::build(plan, (inputs, restore), None, theirs, progress);
            // No guest has used the devices, which are dropped on this thread.
            built.map(|built| (built, is_raw_terminal)).map_err(|failed| failed.error)
        };
        let ((machine, lines), is_raw_terminal) = match self.offload(build)? {
            Offloaded::Done(built) => built?,
            Offloaded::Ended(ending) => return Ok(Offloaded::Ended(ending)),
        };
        handles.is_raw_terminal = is_raw_terminal;
        let opened = self.open_consoles(lines, targets, is_raw_terminal);
        self.started(machine, opened)
    }

    fn start_timer(&mut self, timeout: Duration, message: Message) -> Result<(), Error> {
        let timer =
            Deadline::start(timeout, message, self.messages.0.clone()).context("timerfd of a timeout")?;
        self.events.add(Source::Deadline(timer)).map(drop)
    }

    /// Handles a message while no guest runs.
    fn handle_without_guest(&mut self, message: Message, status: &str) -> Option<Ending> {
        match message {
            Message::Stop => self.stop_process(),
            Message::Continued => self.process_continued(),
            Message::Resized => self.each_console(Console::resized),
            Message::Metrics => self.metrics_due = true,
            Message::Key(Key::Pause) => self.toggle_pause_due(),
            Message::Key(key) => return self.handle_key(key, None, status),
            Message::RequestsPending => return self.execute_requests(None, status),
            Message::JobDone | Message::Wake | Message::DeviceNews | Message::VcpuEnded => {}
            Message::Signal(signal) => return self.quit_by_signal(signal, None, status),
            Message::OutputClosed | Message::RunTimedOut | Message::ShutdownTimedOut | Message::DriverDue => {
            }
        }
        ending_of(message)
    }
}

/// The ending that a message causes in every state.
fn ending_of(message: Message) -> Option<Ending> {
    match message {
        Message::OutputClosed => Some(Ending::OutputClosed),
        Message::ShutdownTimedOut => Some(Ending::Signal(libc::SIGTERM)),
        Message::RunTimedOut => Some(Ending::TimedOut(TimeoutPhase::LastOutput)),
        Message::Wake
        | Message::Signal(_)
        | Message::Metrics
        | Message::Resized
        | Message::Stop
        | Message::Continued
        | Message::DeviceNews
        | Message::JobDone
        | Message::DriverDue
        | Message::VcpuEnded
        | Message::Key(_)
        | Message::RequestsPending => None,
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("started", &self.started).finish_non_exhaustive()
    }
}
