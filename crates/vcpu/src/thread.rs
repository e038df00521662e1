//! A vCPU on a thread of its own, and the handle to it.
//!
//! ```text
//!            spawn                 resume                 the guest ends, or stop
//!   (nothing) ----> paused  ------------------> running ---------------------------> ended
//!                     ^  \___________________________________________________________^
//!                     |            stop            |
//!                     +----------------------------+
//!                                 pause
//! ```
//! While running, the thread is in the guest, dispatches an exit, or is held: parked until the owner of a
//! device that had no room says [`VcpuThread::wake`]. A command gets through in all three.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmm_bus::EventFd;
use vmm_kvm::VcpuReport;
use vmm_sys_util::signal::{Killable, register_signal_handler, unblock_signal};

use crate::run_loop::step;
use crate::{Cpu, End, ExitHandler, Flow, Kick};

/// The signal that takes a vCPU thread out of the guest. Nobody minds it by default. A real-time signal isn't delivered while the
/// processes of the user have as many waiting as they may (RLIMIT_SIGPENDING), which any of them can bring about; one of the others is
/// (Linux, kernel/signal.c, __send_signal_locked).
const KICK: i32 = libc::SIGURG;

/// Stack of a vCPU thread, in bytes. The run loop takes a few KiB, a panic's backtrace some ten. The default of
/// 2 MiB would be backed by a whole huge page where the host gives those to everybody.
const STACK_LEN: usize = 256 << 10;

/// A vCPU that couldn't be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM said no.
    #[error(transparent)]
    Kvm(#[from] vmm_kvm::Error),
    /// No thread, or no signal handler for it.
    #[error("vcpu{index}: {source}")]
    Host {
        /// Number of the vCPU.
        index: u32,
        /// What the host said.
        source: io::Error,
    },
    /// A defect of ours.
    #[error("vcpu{index}: its thread panicked")]
    Panicked {
        /// Number of the vCPU.
        index: u32,
    },
}

enum Command {
    /// Stay out of the guest; say so when it is true.
    Pause(SyncSender<()>),
    /// Say in what state the processor is.
    Report(SyncSender<VcpuReport>),
    Resume,
    Stop,
}

/// What both sides touch.
struct Shared {
    kick: Arc<dyn Kick>,
    /// A command waits. Set after it was sent, cleared before the queue is read.
    kicked: AtomicBool,
    /// Counts the calls of [`VcpuThread::wake`].
    wakes: AtomicU32,
    ended: AtomicBool,
}

/// A vCPU's thread. Dropping it stops and joins the thread. `S` is why the thread's handler ends a guest.
pub struct VcpuThread<S> {
    index: u32,
    shared: Arc<Shared>,
    commands: Sender<Command>,
    /// Taken by [`join`](Self::join).
    thread: Option<JoinHandle<Result<End<S>, Error>>>,
}

/// Installs the handler of the signal that kicks vCPU threads, for the whole process; the first time only.
fn install_kick_signal() -> io::Result<()> {
    extern "C" fn nothing(_: std::ffi::c_int, _: *mut libc::siginfo_t, _: *mut std::ffi::c_void) {}
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let install = || register_signal_handler(KICK, nothing).map_err(|error| error.errno());
    INSTALLED.get_or_init(install).map_err(io::Error::from_raw_os_error)
}

impl<S: Send + 'static> VcpuThread<S> {
    /// Starts the thread `vcpu<index>`, paused. It writes to `ended` when it runs no more.
    ///
    /// The first thread of a process also installs a handler for SIGURG, which kicks all of them.
    ///
    /// # Errors
    /// The host gives no thread, or no signal handler.
    pub fn spawn<C, H>(index: u32, cpu: C, handler: H, ended: EventFd) -> Result<Self, Error>
    where
        C: Cpu + 'static,
        H: ExitHandler<C, Stop = S> + 'static,
    {
        Self::spawn_with(index, cpu, handler, ended, || Ok(()))
    }

    /// As [`spawn`](Self::spawn), with something that the thread does for itself before anything else, such as choosing on which
    /// of the host's processors it runs. If that fails, the thread ends with the error, and the guest never ran there.
    ///
    /// # Errors
    /// The host gives no thread, or no signal handler.
    pub fn spawn_with<C, H, B>(
        index: u32,
        cpu: C,
        handler: H,
        ended: EventFd,
        begin: B,
    ) -> Result<Self, Error>
    where
        C: Cpu + 'static,
        H: ExitHandler<C, Stop = S> + 'static,
        B: FnOnce() -> io::Result<()> + Send + 'static,
    {
        install_kick_signal().map_err(|source| Error::Host { index, source })?;
        let shared = Arc::new(Shared {
            kick: cpu.kick(),
            kicked: AtomicBool::new(false),
            wakes: AtomicU32::new(0),
            ended: AtomicBool::new(false),
        });
        let (commands, receiver) = channel();
        let worker = Worker { cpu, handler, commands: receiver, shared: Arc::clone(&shared) };
        let body = move || {
            let shared = Arc::clone(&worker.shared);
            // The machine must hear of a vCPU that panicked, too.
            let result = catch_unwind(AssertUnwindSafe(|| {
                // Whoever started the process, or the thread, may have blocked it.
                let unblocked = unblock_signal(KICK).map_err(|error| io::Error::other(format!("{error:?}")));
                unblocked.and_then(|()| begin()).map_err(|source| Error::Host { index, source })?;
                worker.work()
            }));
            shared.ended.store(true, Ordering::Release);
            // Full is impossible, and a listener that has gone needs no word.
            let _ = ended.write(1);
            result.unwrap_or(Err(Error::Panicked { index }))
        };
        let thread = thread::Builder::new()
            .name(format!("vcpu{index}"))
            .stack_size(STACK_LEN)
            .spawn(body)
            .map_err(|source| Error::Host { index, source })?;
        Ok(Self { index, shared, commands, thread: Some(thread) })
    }

    /// Number of the vCPU.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether [`join`](Self::join) returns without waiting for the guest.
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Takes the vCPU out of the guest, with its last access complete, and returns when that is true. A vCPU
    /// that ended counts as paused.
    pub fn pause(&self) {
        self.begin_pause().wait();
    }

    /// As [`pause`](Self::pause), in two steps, so that many vCPUs stop at the same time.
    pub fn begin_pause(&self) -> Pausing {
        let (acknowledge, acknowledged) = sync_channel(1);
        self.send(Command::Pause(acknowledge));
        Pausing(acknowledged)
    }

    /// The state of the processor, paused or running; one that runs leaves the guest for it. `None` of a vCPU that ended.
    pub fn report(&self) -> Option<VcpuReport> {
        self.begin_report().0.recv().ok()
    }

    /// As [`report`](Self::report), in two steps.
    pub(crate) fn begin_report(&self) -> Reporting {
        let (sender, receiver) = sync_channel(1);
        self.send(Command::Report(sender));
        Reporting(receiver)
    }

    /// Lets a paused vCPU run. Nothing happens to one that runs or has ended.
    pub fn resume(&self) {
        // Without a kick: a paused thread waits for this word, and one that runs needs not hear it. A thread that ended has no
        // ears, which is as good.
        let _ = self.commands.send(Command::Resume);
    }

    /// Ends a hold: a handler that said [`Flow::Hold`](crate::Flow::Hold) has room again.
    pub fn wake(&self) {
        self.shared.wakes.fetch_add(1, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Tells the vCPU to end. [`join`](Self::join) waits for it.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    /// Waits until the vCPU ends and says why.
    ///
    /// # Errors
    /// KVM_RUN failed, or the thread panicked.
    pub fn join(mut self) -> Result<End<S>, Error> {
        let index = self.index;
        let thread = self.thread.take().expect("only join and drop take it");
        thread.join().unwrap_or(Err(Error::Panicked { index }))
    }
}

impl<S> VcpuThread<S> {
    fn send(&self, command: Command) {
        // A thread that ended has no ears, which is as good.
        let _ = self.commands.send(command);
        self.shared.kicked.store(true, Ordering::Release);
        // Flag first, signal second: see ImmediateExit.
        self.shared.kick.set();
        if let Some(thread) = &self.thread {
            // Without it a halted guest would never leave KVM_RUN. A thread that has ended is no error.
            thread.kill(KICK).expect("only an invalid signal number is refused");
            thread.thread().unpark();
        }
    }
}

impl<S> Drop for VcpuThread<S> {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.send(Command::Stop);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<S> std::fmt::Debug for VcpuThread<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VcpuThread").field("index", &self.index).finish_non_exhaustive()
    }
}

/// A pause on its way.
#[derive(Debug)]
#[must_use = "the vCPU may still run until `wait` returns"]
pub struct Pausing(Receiver<()>);

impl Pausing {
    /// Returns when the vCPU is out of the guest.
    pub fn wait(self) {
        // An error means that the thread has ended, and dropped its end.
        let _ = self.0.recv();
    }

    /// As [`wait`](Self::wait), but returns `false` after `patience` if the vCPU still is in the guest.
    pub fn wait_within(self, patience: Duration) -> bool {
        self.0.recv_timeout(patience) != Err(RecvTimeoutError::Timeout)
    }
}

/// A report on its way.
pub(crate) struct Reporting(Receiver<VcpuReport>);

impl Reporting {
    /// Gives a running vCPU this time to leave the guest. `None` also of one that has ended.
    pub(crate) fn wait_within(self, patience: Duration) -> Option<VcpuReport> {
        self.0.recv_timeout(patience).ok()
    }
}

/// The thread's side.
struct Worker<C, H> {
    cpu: C,
    handler: H,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
}

/// What the commands ask for.
enum Order {
    Run,
    Stop,
}

impl<C: Cpu, H: ExitHandler<C>> Worker<C, H> {
    fn work(mut self) -> Result<End<H::Stop>, Error> {
        if let Order::Stop = self.wait_for_resume() {
            return Ok(End::Stopped);
        }
        // The count of wakes at which a hold began.
        let mut held_at = None;
        loop {
            if let Some(wakes) = held_at {
                self.wait_for_wake(wakes);
                // In front of the question: a wake behind it isn't lost.
                let now = self.wakes();
                if now == wakes {
                    // Kicked, and still held: complete the access and don't enter the guest.
                    self.shared.kick.set();
                } else if self.handler.is_held() {
                    held_at = Some(now);
                    continue;
                } else {
                    held_at = None;
                }
            }
            let wakes = self.wakes();
            match step(&mut self.cpu, &mut self.handler)? {
                Flow::Enter => {}
                Flow::Hold => held_at = Some(wakes),
                Flow::Stop(End::Stopped) => {
                    if let Order::Stop = self.obey() {
                        return Ok(End::Stopped);
                    }
                }
                Flow::Stop(end) => return Ok(end),
            }
        }
    }

    fn wakes(&self) -> u32 {
        self.shared.wakes.load(Ordering::Acquire)
    }

    fn wait_for_wake(&self, wakes: u32) {
        while self.wakes() == wakes && !self.shared.kicked.load(Ordering::Acquire) {
            thread::park();
        }
    }

    /// Carries out the commands that wait.
    fn obey(&mut self) -> Order {
        // In this order: a command sent after the queue is read sets both again.
        self.shared.kick.clear();
        self.shared.kicked.store(false, Ordering::Release);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Pause(acknowledge) => {
                    let _ = acknowledge.send(());
                    if let Order::Stop = self.wait_for_resume() {
                        return Order::Stop;
                    }
                    self.cpu.notify_pause();
                }
                Command::Report(report) => {
                    let _ = report.send(self.cpu.report());
                }
                Command::Resume => {}
                Command::Stop => return Order::Stop,
            }
        }
        Order::Run
    }

    /// Out of the guest until told otherwise.
    fn wait_for_resume(&mut self) -> Order {
        loop {
            match self.commands.recv() {
                Ok(Command::Pause(acknowledge)) => {
                    let _ = acknowledge.send(());
                }
                Ok(Command::Report(report)) => {
                    let _ = report.send(self.cpu.report());
                }
                Ok(Command::Resume) => return Order::Run,
                // No handle any more: nobody could ever stop us.
                Ok(Command::Stop) | Err(_) => return Order::Stop,
            }
        }
    }
}
