//! What outlives machines: the event loop, the signals, the consoles, the timeout and what was logged. It has one machine after
//! the other.
//!
//! ```text
//!          build                resume              the guest or the user           stop
//!   empty -------> configured -------> running <--> paused -------------> stopped ------> empty
//!     ^                                                                      |
//!     +-------------------- a reset: the next machine of the same files -----+
//! ```
//! Whatever may wait for a file is done by a [`Job`](crate::job::Job), on a thread of its own: opening, reading a kernel, stopping a
//! disk. So the event loop goes on, and whoever wants to end the monitor is heard, even if the host's storage never answers.

mod commands;
mod consoles;
mod keys_and_signals;
mod offloaded;
mod patience;
mod requests;
mod running;
mod waiting;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberId, SubscriberOps};
use vmm_config::{Config, OnReboot};
use vmm_hostio::terminal::{self, RawMode};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub use offloaded::Offloaded;
pub use requests::Commander;

use crate::console::Console;
use crate::deadline::Deadline;
use crate::diagnostics::{ExitReport, Stream};
use crate::ending::Late;
use crate::error::Tried;
use crate::event_loop::{Source, Told};
use crate::job::Progress;
use crate::machine::Machine;
use crate::message::Message;
use crate::parts::Parts;
use crate::run_state::RunState;
use crate::signals::Signals;
use crate::{DeviceLog, Diagnostics, Ending, Error, Inputs, Kinds, Messages, MetricsFile, Plan};
use patience::END_PATIENCE;
use requests::Requests;

/// How long a guest may take to shut down, unless told otherwise: a third of what service managers give before they kill.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// When the run is over, whatever the guest does.
    pub run: Option<Instant>,
    /// How long a guest whose power button SIGTERM has pressed may take to shut down.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { run: None, shutdown: SHUTDOWN_TIMEOUT }
    }
}

/// What a machine is made of, and what is wanted of its run.
#[derive(Debug)]
pub struct Start {
    /// The config, for the machines that follow a reset.
    pub config: Arc<Config>,
    /// The kinds of devices that there are.
    pub kinds: Kinds<'static>,
    /// The first machine's plan.
    pub plan: Plan,
    /// Its opened files.
    pub inputs: Inputs,
    /// What to show of the guest.
    pub diagnostics: Diagnostics,
    /// Where the counters go, at the end and on SIGUSR1.
    pub metrics: Option<MetricsFile>,
    /// Where the names of new ptys are said.
    pub announcements: Option<Messages>,
    /// Leave the first machine configured: a [`Command::Resume`](vmm_config::Command::Resume) starts it.
    pub paused: bool,
    /// Is told how often the guest has reset its machine, before the next one starts.
    pub restarted: fn(u32),
}

impl Start {
    /// Opens what `config` names and plans the first machine. Everything else has its default: nothing is shown or written of the
    /// guest, which starts at once.
    ///
    /// # Errors
    /// As [`Inputs::open`] and [`Plan::new`].
    pub fn new(config: Arc<Config>, kinds: Kinds<'static>) -> Result<Self, Error> {
        let mut inputs = Inputs::open(&config, &kinds)?;
        let plan = Plan::new(&config, &mut inputs)?;
        Ok(Self {
            config,
            kinds,
            plan,
            inputs,
            diagnostics: Diagnostics::default(),
            metrics: None,
            announcements: None,
            paused: false,
            restarted: |_| {},
        })
    }
}

/// What became of the machines.
#[derive(Debug)]
pub struct Run {
    /// How the last one ended.
    pub ending: Ending,
    /// Its exits, if they were counted.
    pub exits: Option<Box<ExitReport>>,
}

/// The owner of what outlives a machine. There is one in a process, since it takes the process's signals.
pub struct Supervisor {
    events: EventManager<Source>,
    messages: (Sender<Message>, Receiver<Message>),
    /// Those whose lines the event loop writes.
    attached: Vec<Messages>,
    consoles: Vec<SubscriberId>,
    device_log: DeviceLog,
    metrics_file: Option<MetricsFile>,
    /// SIGUSR1 came while no machine was there.
    metrics_due: bool,
    announcements: Option<Messages>,
    shutdown_timeout: Duration,
    shutting_down: bool,
    /// An end that was asked for while a machine was ending, in case that it was to be followed by another.
    asked_for: Option<Ending>,
    requests: Requests,
    /// Written when a job is done, a vCPU has ended, a device has news.
    job_done: Arc<EventFd>,
    vcpu_ended: Arc<EventFd>,
    news: Arc<EventFd>,
    /// The process's start, for the log.
    started: Instant,
    /// Raw from the first machine's start to the last one's end.
    terminal: Option<RawMode>,
}

/// A machine whose guest has ended, with its devices.
struct StoppedMachine {
    run: Run,
    /// `None` if its vCPUs couldn't be stopped.
    machine: Option<Machine>,
}

impl Supervisor {
    /// Blocks every signal in this thread that would kill the process, but those of defects and those that it ignores; they are
    /// heard from now on. Call it before other threads are there, which inherit that. `started` is when the process began.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub fn new(started: Instant, timeouts: Timeouts) -> Result<Self, Error> {
        let (messages, received) = channel();
        let mut events = EventManager::new().map_err(no_event_loop)?;
        let signals = Signals::block(messages.clone()).tried("signalfd")?;
        events.add_subscriber(Source::Signals(signals));
        let mut told = |what, message| {
            let event = EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC).map(Arc::new).tried(what)?;
            let told = Told::new(Arc::clone(&event), message, messages.clone());
            events.add_subscriber(Source::Told(told));
            Ok::<_, Error>(event)
        };
        let job_done = told("eventfd of jobs", Message::JobDone)?;
        let vcpu_ended = told("eventfd of the vCPUs", Message::VcpuEnded)?;
        let news = told("eventfd of the devices", Message::DeviceNews)?;
        let requested = told("eventfd of requests", Message::Requested)?;
        let mut supervisor = Self {
            events,
            messages: (messages, received),
            attached: Vec::new(),
            consoles: Vec::new(),
            device_log: DeviceLog::default(),
            metrics_file: None,
            metrics_due: false,
            announcements: None,
            shutdown_timeout: timeouts.shutdown,
            shutting_down: false,
            asked_for: None,
            requests: Requests::new(requested),
            job_done,
            vcpu_ended,
            news,
            started,
            terminal: None,
        };
        if let Some(end) = timeouts.run {
            let left = end.saturating_duration_since(Instant::now());
            supervisor.start_timer(left, Message::TimeIsUp)?;
        }
        Ok(supervisor)
    }

    /// Has the event loop write what of `messages` had to wait for its reader. What this thread says goes out at once.
    pub fn attach(&mut self, messages: &Messages) {
        if !self.attached.iter().any(|other| other.is_same(messages)) {
            messages.belong_to_this_thread();
            self.attached.push(messages.clone());
            let stream = Stream::new(messages.clone(), self.messages.0.clone());
            self.events.add_subscriber(Source::Stream(stream));
        }
    }

    /// Runs machine after machine, until one isn't followed by another.
    ///
    /// # Errors
    /// The host lacks KVM, memory or something else, or a file is damaged: nothing is left behind then. A vCPU or the event loop
    /// failed.
    pub fn run(&mut self, start: Start) -> Result<Run, Error> {
        let Start { config, kinds, plan, inputs, diagnostics, metrics, announcements, paused, restarted } =
            start;
        self.metrics_file = metrics;
        self.announcements = announcements;
        let on_terminal = plan.is_on_stdio() && io::IsTerminal::is_terminal(&io::stdin());
        let lines = diagnostics.lines.clone().map_or_else(Messages::to_stderr, Ok);
        let lines = lines.tried("eventfd of the messages")?;
        self.attach(&lines);
        let parts = Parts {
            diagnostics,
            lines,
            is_raw_terminal: on_terminal,
            ended: Arc::clone(&self.vcpu_ended),
            news: Arc::clone(&self.news),
        };
        let mut machine = match self.first_machine(plan, inputs, parts.clone())? {
            Offloaded::Done(machine) => machine,
            Offloaded::Ended(ending) => return Ok(Run { ending, exits: None }),
        };
        let mut restarts = 0_u32;
        let mut starts = !paused;
        loop {
            let StoppedMachine { run, machine: stopped } = self.run_machine(machine, starts)?;
            let wants_restart = run.ending.is_reset() && !self.shutting_down;
            let restarts_it = wants_restart && config.on_reboot == OnReboot::Restart;
            let stopped = match stopped {
                Some(stopped) if restarts_it => stopped,
                Some(stopped) => {
                    self.finish("closing files", move |progress| stopped.close(progress));
                    return Ok(run);
                }
                None => return Ok(run),
            };
            // A guest that nobody has started isn't started by a reset.
            starts = stopped.state != RunState::Configured;
            let (config, parts) = (Arc::clone(&config), parts.clone());
            let rebuild = move |progress: &Progress| stopped.rebuild(&config, &kinds, parts, progress);
            let job = self.start_job("restarting", rebuild);
            let (next, lines) = match self.offloaded(job, END_PATIENCE, Late::Restarting)? {
                Offloaded::Done(rebuilt) => rebuilt?,
                Offloaded::Ended(ending) => return Ok(Run { ending, exits: run.exits }),
            };
            machine = next;
            if let Err(error) = self.move_consoles(lines) {
                self.discard(machine);
                return Err(error);
            }
            restarts = restarts.saturating_add(1);
            restarted(restarts);
        }
    }

    /// Builds it and opens its consoles.
    fn first_machine(
        &mut self,
        plan: Plan,
        inputs: Inputs,
        parts: Parts,
    ) -> Result<Offloaded<Machine>, Error> {
        let is_raw_terminal = parts.is_raw_terminal;
        let build = move |progress: &Progress| Machine::build(plan, inputs, None, parts, progress);
        let (machine, lines) = match self.offload(build)? {
            Offloaded::Done(built) => built?,
            Offloaded::Ended(ending) => return Ok(Offloaded::Ended(ending)),
        };
        match self.open_consoles(lines, is_raw_terminal) {
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

    fn start_timer(&mut self, timeout: Duration, word: Message) -> Result<(), Error> {
        let timer = Deadline::start(timeout, word, self.messages.0.clone()).tried("timerfd of a timeout")?;
        self.events.add_subscriber(Source::Deadline(timer));
        Ok(())
    }

    /// What a message means while no guest runs.
    fn heed_without_guest(&mut self, message: Message, status: &str) -> Option<Ending> {
        match message {
            Message::Continued => {
                terminal::continued();
                self.each_console(Console::resized);
            }
            Message::Resized => self.each_console(Console::resized),
            Message::Metrics => self.metrics_due = true,
            Message::Key(key) => return self.typed(key, None, status),
            Message::Requested => return self.obey(None, status),
            Message::JobDone | Message::Wake | Message::DeviceNews | Message::VcpuEnded => {}
            Message::Signal(signal) => return self.quit_by(signal, None, status),
            Message::OutputGone | Message::TimeIsUp | Message::ShutdownTimeIsUp => {}
        }
        ending_of(message)
    }
}

fn no_event_loop(error: event_manager::Error) -> Error {
    match error {
        event_manager::Error::Epoll(errno) => {
            Error::Host { what: "epoll", source: io::Error::from_raw_os_error(errno.errno()) }
        }
        error => Error::EventLoop(error),
    }
}

/// The end that a message asks for by itself.
fn ending_of(message: Message) -> Option<Ending> {
    match message {
        Message::OutputGone => Some(Ending::OutputGone),
        Message::ShutdownTimeIsUp => Some(Ending::Signal(libc::SIGTERM)),
        Message::TimeIsUp => Some(Ending::TimeIsUp(Late::LastOutput)),
        Message::Wake
        | Message::Signal(_)
        | Message::Metrics
        | Message::Resized
        | Message::Continued
        | Message::DeviceNews
        | Message::JobDone
        | Message::VcpuEnded
        | Message::Key(_)
        | Message::Requested => None,
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("started", &self.started).finish_non_exhaustive()
    }
}
