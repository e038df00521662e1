//! What outlives machines: the event loop, the signals, the consoles, the timeout and what was logged. It has one machine after
//! the other.
//!
//! ```text
//!          build                resume              the guest or the user           stop
//!   empty -------> configured -------> running <--> paused -------------> stopped ------> empty
//!     ^                                                                      |
//!     +-------------------- a reset: the next machine of the same files -----+
//! ```
//! Whatever may wait for a file is done by a [`Job`], on a thread of its own: opening, reading a kernel, stopping a disk. So the
//! event loop goes on, and whoever wants to end the monitor is heard, even if the host's storage never answers.

mod job;
mod running;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberId, SubscriberOps};
use tracing::warn;
use vmm_bus::Power;
use vmm_config::{Config, OnReboot};
use vmm_hostio::crash;
use vmm_hostio::terminal::{self, RawMode};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_virtio::Entry;

pub use job::{Progress, Step};

use crate::build::Parts;
use crate::console::{self, Console, Lines};
use crate::deadline::Deadline;
use crate::diagnostics::{ExitReport, Stream};
use crate::ending::Late;
use crate::error::Tried;
use crate::event_loop::{Message, Source, Told};
use crate::machine::Machine;
use crate::signals::Signals;
use crate::{DeviceLog, Diagnostics, Ending, Error, Inputs, Messages, MetricsFile, Plan};
use job::Job;

/// How long a guest may take to shut down, unless told otherwise: a third of what service managers give before they kill.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which the user is told what the end waits for, and may ask again to leave it.
const NOTICE: Duration = Duration::from_secs(1);
/// Time that an unfinished start has. It has nothing to lose but the names of sockets.
const START_PATIENCE: Duration = Duration::from_secs(1);
/// Time that a machine's devices have to finish what they have begun.
const END_PATIENCE: Duration = Duration::from_secs(30);

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
    /// The kinds of virtio devices that there are.
    pub kinds: &'static [Entry],
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
    /// Is told how often the guest has reset its machine, before the next one starts.
    pub restarted: fn(u32),
}

/// What became of the machines.
#[derive(Debug)]
pub struct Run {
    /// How the last one ended.
    pub ending: Ending,
    /// Its exits, if they were counted.
    pub exits: Option<Box<ExitReport>>,
}

/// What became of work that the [`Supervisor`] had done elsewhere.
#[derive(Debug)]
pub enum Offloaded<T> {
    /// It is done.
    Done(T),
    /// Somebody wanted to end the monitor before it was.
    Ended(Ending),
}

/// The owner of what outlives a machine. There is one in a process, since it takes the process's signals.
pub struct Supervisor {
    events: EventManager<Source>,
    messages: (Sender<Message>, Receiver<Message>),
    /// Those whose lines the event loop writes.
    attached: Vec<Messages>,
    consoles: Vec<SubscriberId>,
    device_log: DeviceLog,
    metrics: Option<MetricsFile>,
    /// SIGUSR1 came while no machine was there.
    metrics_due: bool,
    announcements: Option<Messages>,
    shutdown_timeout: Duration,
    shutting_down: bool,
    /// An end that was asked for while a machine was ending, in case that it was to be followed by another.
    asked_for: Option<Ending>,
    /// Written when a job is done, a vCPU has ended, a device has news.
    job_done: Arc<EventFd>,
    vcpu_ended: Arc<EventFd>,
    news: Arc<EventFd>,
    /// The process's start, for the log.
    started: Instant,
    /// Raw from the first machine's start to the last one's end.
    terminal: Option<RawMode>,
}

/// A machine that has ended, with its devices.
struct Ended {
    ending: Ending,
    exits: Option<Box<ExitReport>>,
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
        let mut events = EventManager::new().map_err(Error::EventLoop)?;
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
        let mut supervisor = Self {
            events,
            messages: (messages, received),
            attached: Vec::new(),
            consoles: Vec::new(),
            device_log: DeviceLog::default(),
            metrics: None,
            metrics_due: false,
            announcements: None,
            shutdown_timeout: timeouts.shutdown,
            shutting_down: false,
            asked_for: None,
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

    /// Does `work`, which prepares a start, on another thread, and hears meanwhile whether the user wants to end the monitor.
    /// If so, the work has a second to come to its end; what it made is dropped. If that isn't enough it is left alone, to end
    /// with the process.
    ///
    /// # Errors
    /// There is no thread for it, it panicked, or the event loop failed.
    pub fn offload<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Result<Offloaded<T>, Error> {
        self.offload_within(START_PATIENCE, work)
    }

    /// Runs machine after machine, until one isn't followed by another.
    ///
    /// # Errors
    /// The host lacks KVM, memory or something else, or a file is damaged: nothing is left behind then. A vCPU or the event loop
    /// failed.
    pub fn run(&mut self, start: Start) -> Result<Run, Error> {
        let Start { config, kinds, plan, inputs, diagnostics, metrics, announcements, restarted } = start;
        self.metrics = metrics;
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
        let theirs = parts.clone();
        let built = self.offload(move |progress| Machine::build(plan, inputs, None, theirs, progress))?;
        let (mut machine, lines) = match built {
            Offloaded::Done(built) => built?,
            Offloaded::Ended(ending) => return Ok(Run { ending, exits: None }),
        };
        match self.open_consoles(lines, on_terminal) {
            Ok(Offloaded::Done(())) => {}
            Ok(Offloaded::Ended(ending)) => {
                self.discard(machine);
                return Ok(Run { ending, exits: None });
            }
            Err(error) => {
                self.discard(machine);
                return Err(error);
            }
        }
        let mut restarts = 0_u32;
        loop {
            let Ended { ending, exits, machine: stopped } = self.run_machine(machine)?;
            let wants_restart = matches!(ending, Ending::Guest(Power::Reset)) && !self.shutting_down;
            let restarts_it = wants_restart && config.on_reboot == OnReboot::Restart;
            let stopped = match stopped {
                Some(stopped) if restarts_it => stopped,
                stopped => {
                    if let Some(stopped) = stopped {
                        self.finish(move |progress| stopped.close(progress));
                    }
                    return Ok(Run { ending, exits });
                }
            };
            let (config, parts) = (Arc::clone(&config), parts.clone());
            let rebuilt = self.offload_within(END_PATIENCE, move |progress| {
                stopped.rebuild(&config, kinds, parts, progress)
            })?;
            let lines;
            (machine, lines) = match rebuilt {
                Offloaded::Done(rebuilt) => rebuilt?,
                Offloaded::Ended(ending) => return Ok(Run { ending, exits }),
            };
            if let Err(error) = self.move_consoles(lines) {
                self.discard(machine);
                return Err(error);
            }
            restarts = restarts.saturating_add(1);
            restarted(restarts);
        }
    }

    fn offload_within<T: Send + 'static>(
        &mut self,
        patience: Duration,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Result<Offloaded<T>, Error> {
        let mut job = self.start_job(work)?;
        let ending = match self.wait_for(&mut job, None, |_| true)? {
            Waited::Done(done) => return Ok(Offloaded::Done(done)),
            Waited::Ended(ending) => ending.while_starting(job.progress().text()),
            // Never, without a limit.
            Waited::Late => Ending::Quit,
        };
        if let Some(done) = self.finish_job(&mut job, patience)? {
            self.discard(done);
        }
        Ok(Offloaded::Ended(ending))
    }

    /// Does `work`, which ends something, on another thread. Whoever wants to end the monitor need not wait longer than that takes,
    /// or than [`END_PATIENCE`].
    fn finish<T: Send + 'static>(&mut self, work: impl FnOnce(&Progress) -> T + Send + 'static) -> Option<T> {
        let job = self.start_job(work);
        match job.and_then(|mut job| self.finish_job(&mut job, END_PATIENCE)) {
            Ok(done) => done,
            Err(error) => {
                warn!("{error}");
                None
            }
        }
    }

    /// Drops what may wait for a file when it is dropped.
    fn discard<T: Send + 'static>(&mut self, value: T) {
        self.finish(move |progress| {
            let _step = progress.begin("closing files".to_owned());
            drop(value);
        });
    }

    fn start_job<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Result<Job<T>, Error> {
        Job::start(Arc::clone(&self.job_done), work).tried("thread of a job")
    }

    /// Waits for a job without which the monitor could end. `None` if it took too long, or the user doesn't want to wait.
    fn finish_job<T: Send + 'static>(
        &mut self,
        job: &mut Job<T>,
        patience: Duration,
    ) -> Result<Option<T>, Error> {
        let begun = Instant::now();
        if let Waited::Done(done) = self.wait_for(job, Some(begun + NOTICE.min(patience)), |_| false)? {
            return Ok(Some(done));
        }
        let doing = job.progress().text();
        if patience > NOTICE {
            let left = patience - NOTICE;
            warn!("still {doing}; another signal, Ctrl-A x, or {left:?} more leave that unfinished");
            if let Waited::Done(done) = self.wait_for(job, Some(begun + patience), Ending::is_asked_for)? {
                return Ok(Some(done));
            }
        }
        warn!("left unfinished: {}", job.progress().text());
        Ok(None)
    }

    /// Runs the event loop until the job is done, the time is over, or something asks for an end that is heeded.
    fn wait_for<T: Send + 'static>(
        &mut self,
        job: &mut Job<T>,
        until: Option<Instant>,
        is_heeded: fn(&Ending) -> bool,
    ) -> Result<Waited<T>, Error> {
        loop {
            if let Some(result) = job.take() {
                return result.map(Waited::Done).map_err(|_| Error::JobPanicked);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(Waited::Late);
            }
            self.turn(until)?;
            while let Ok(message) = self.messages.1.try_recv() {
                match self.heed_without_guest(message, &job.progress().text()) {
                    Some(ending) if is_heeded(&ending) => return Ok(Waited::Ended(ending)),
                    Some(ending) => self.asked_for = self.asked_for.take().or(Some(ending)),
                    None => {}
                }
            }
        }
    }

    /// A turn of the event loop.
    fn turn(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let turned = match until {
            None => self.events.run(),
            Some(until) => {
                // Rounded up: the last millisecond is waited for too.
                let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                self.events.run_with_timeout(left.as_millis().try_into().unwrap_or(i32::MAX))
            }
        };
        turned.map(drop).map_err(Error::EventLoop)
    }

    fn start_timer(&mut self, timeout: Duration, word: Message) -> Result<(), Error> {
        let timer = Deadline::start(timeout, word, self.messages.0.clone()).tried("timerfd of a timeout")?;
        self.events.add_subscriber(Source::Deadline(timer));
        Ok(())
    }

    /// Opens the first machine's consoles, and makes the terminal raw. Nothing refuses the start any more after that: only then a
    /// console's file loses what was in it.
    fn open_consoles(&mut self, lines: Lines, on_terminal: bool) -> Result<Offloaded<()>, Error> {
        let messages = self.messages.0.clone();
        let opened = self.offload(move |progress| {
            let _step = progress.begin("opening the consoles".to_owned());
            console::open_all(lines, Vec::new(), &messages)
        })?;
        let mut consoles = match opened {
            Offloaded::Done(opened) => opened?,
            Offloaded::Ended(ending) => return Ok(Offloaded::Ended(ending)),
        };
        if on_terminal {
            crash::restore_terminal().map_err(Error::Terminal)?;
            self.terminal = Some(RawMode::enter(io::stdin()).map_err(Error::Terminal)?);
        }
        let begun = self.offload(move |progress| {
            let _step = progress.begin("emptying the consoles' files".to_owned());
            consoles.iter_mut().try_for_each(Console::begin).map(|()| consoles)
        })?;
        match begun {
            Offloaded::Done(begun) => self.add_consoles(begun?),
            Offloaded::Ended(ending) => return Ok(Offloaded::Ended(ending)),
        }
        Ok(Offloaded::Done(()))
    }

    /// Gives the consoles the lines of the machine that follows.
    fn move_consoles(&mut self, lines: Lines) -> Result<(), Error> {
        let ids = std::mem::take(&mut self.consoles);
        let removed = ids.into_iter().map(|id| self.events.remove_subscriber(id));
        let kept = removed.filter_map(|removed| match removed {
            Ok(Source::Console(console)) => Some(*console),
            _ => None,
        });
        let kept = kept.collect();
        let mut consoles = console::open_all(lines, kept, &self.messages.0)?;
        consoles.iter_mut().try_for_each(Console::begin)?;
        self.add_consoles(consoles);
        Ok(())
    }

    fn add_consoles(&mut self, mut consoles: Vec<Console>) {
        let ptys = consoles.iter_mut().filter_map(Console::announcement);
        let ptys: String = ptys.map(|(console, pty)| format!("{console}: {pty}\n")).collect();
        if let Some(announcements) = &self.announcements {
            announcements.say(ptys.as_bytes());
        }
        let sources = consoles.into_iter().map(|console| Source::Console(Box::new(console)));
        self.consoles = sources.map(|source| self.events.add_subscriber(source)).collect();
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
            Message::Status => self.say(status),
            Message::PowerButton | Message::Pause => self.say("no guest runs"),
            Message::JobDone | Message::Wake | Message::DeviceNews | Message::VcpuEnded => {}
            Message::Quit
            | Message::OutputGone
            | Message::Signal(_)
            | Message::TimeIsUp
            | Message::ShutdownTimeIsUp => {}
        }
        ending_of(message)
    }

    /// Says something to the person at the terminal, if there is one.
    fn say(&mut self, text: &str) {
        self.each_console(|console| console.say(text));
    }

    fn each_console(&mut self, mut act: impl FnMut(&mut Console)) {
        for id in &self.consoles {
            if let Ok(Source::Console(console)) = self.events.subscriber_mut(*id) {
                act(console);
            }
        }
    }
}

/// How waiting ended.
enum Waited<T> {
    Done(T),
    Ended(Ending),
    Late,
}

/// The end that a message asks for by itself.
fn ending_of(message: Message) -> Option<Ending> {
    match message {
        Message::Quit => Some(Ending::Quit),
        Message::OutputGone => Some(Ending::OutputGone),
        Message::Signal(signal) => Some(Ending::Signal(signal)),
        Message::ShutdownTimeIsUp => Some(Ending::Signal(libc::SIGTERM)),
        Message::TimeIsUp => Some(Ending::TimeIsUp(Late::LastOutput)),
        Message::Wake
        | Message::Metrics
        | Message::Resized
        | Message::Continued
        | Message::DeviceNews
        | Message::JobDone
        | Message::VcpuEnded
        | Message::PowerButton
        | Message::Pause
        | Message::Status => None,
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("started", &self.started).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_that_hangs_is_left_when_its_time_is_over() {
        let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default()).unwrap();
        let (release, released) = channel::<()>();
        let mut job = supervisor.start_job(move |_| released.recv()).unwrap();
        assert!(supervisor.finish_job(&mut job, Duration::from_millis(20)).unwrap().is_none());
        release.send(()).unwrap();
        assert_eq!(supervisor.finish_job(&mut job, Duration::from_secs(10)).unwrap(), Some(Ok(())));
    }

    #[test]
    fn run_whose_time_is_up_leaves_work_that_is_not_done_and_says_what_it_was() {
        let timeouts = Timeouts { run: Some(Instant::now()), ..Timeouts::default() };
        let mut supervisor = Supervisor::new(Instant::now(), timeouts).unwrap();
        let (_release, released) = channel::<()>();
        let offloaded = supervisor.offload(move |progress| {
            let _step = progress.begin("reading the kernel".to_owned());
            released.recv()
        });
        let Ok(Offloaded::Ended(ending)) = offloaded else { panic!("{offloaded:?}") };
        assert_eq!(ending.to_string(), "the timeout has passed before the guest ran: reading the kernel");
    }
}
