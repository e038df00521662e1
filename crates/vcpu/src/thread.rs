//! The thread of a vCPU, and its handle.
//!
//! ```text
//!            spawn                 resume                 the guest ends, or stop
//!   (nothing) ----> paused  ------------------> running ---------------------------> ended
//!                     ^  \___________________________________________________________^
//!                     |            stop            |
//!                     +----------------------------+
//!                                 pause
//! ```
//! While running, the thread is in the guest, handles an exit, or is held: parked until the owner of a device
//! without room calls [`VcpuThread::wake`]. Commands are handled in all three cases.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmm_bus::EventFd;
use vmm_kvm::{VcpuReport, VcpuState};
use vmm_sys_util::signal::{Killable, register_signal_handler, unblock_signal};

use crate::run_loop::step;
use crate::{Cpu, End, ExitHandler, Flow, Kick};

/// The signal that makes a vCPU thread leave the guest. It is ignored by default. A real-time signal would not be delivered while
/// the user's processes have RLIMIT_SIGPENDING signals queued, which any of these processes can cause; other signals always are
/// (Linux, kernel/signal.c, __send_signal_locked).
const KICK: i32 = libc::SIGURG;

/// Stack size of a vCPU thread in bytes. The run loop needs a few KiB, and a panic's backtrace some tens. The
/// default of 2 MiB would take a whole huge page on hosts where transparent huge pages are always on.
const STACK_LEN: usize = 256 << 10;

/// Why a vCPU's thread failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A KVM operation failed.
    #[error(transparent)]
    Kvm(#[from] vmm_kvm::Error),
    /// The host can't provide the thread or its signal handler, or the thread's setup failed.
    #[error("vcpu{index}: {source}")]
    Host {
        /// Index of the vCPU.
        index: u32,
        /// The host's error.
        source: io::Error,
    },
    /// Its state was to be saved while it wasn't paused.
    #[error("vcpu{index}: isn't paused")]
    NotPaused {
        /// Index of the vCPU.
        index: u32,
    },
    /// The thread panicked, which is a bug.
    #[error("vcpu{index}: thread panicked")]
    Panicked {
        /// Index of the vCPU.
        index: u32,
    },
}

enum Command {
    /// Pause, and acknowledge it.
    Pause(SyncSender<()>),
    /// Send the processor's state.
    Report(SyncSender<VcpuReport>),
    /// Send the processor's whole state, with these model-specific registers. Only for one that is paused.
    Save(Arc<[u32]>, SyncSender<Result<VcpuState, vmm_kvm::Error>>),
    Resume,
    Stop,
}

/// State shared by the thread and its handle.
struct Shared {
    kick: Arc<dyn Kick>,
    /// Commands are pending. Set after a command is sent, and cleared before the channel is read.
    kicked: AtomicBool,
    /// Number of calls of [`VcpuThread::wake`], modulo 2^32.
    wakes: AtomicU32,
    ended: AtomicBool,
}

/// The handle of a vCPU's thread. Dropping it stops and joins the thread. `S` is the handler's reason to end the vCPU.
pub struct VcpuThread<S> {
    index: u32,
    shared: Arc<Shared>,
    commands: Sender<Command>,
    /// `None` after [`join`](Self::join) or drop.
    thread: Option<JoinHandle<Result<End<S>, Error>>>,
}

/// Installs the handler of the kick signal for the whole process, once.
fn install_kick_signal() -> io::Result<()> {
    extern "C" fn nothing(_: std::ffi::c_int, _: *mut libc::siginfo_t, _: *mut std::ffi::c_void) {}
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let install = || register_signal_handler(KICK, nothing).map_err(|error| error.errno());
    INSTALLED.get_or_init(install).map_err(io::Error::from_raw_os_error)
}

impl<S: Send + 'static> VcpuThread<S> {
    /// Starts the thread `vcpu<index>`, paused. It writes to `ended` when the vCPU has ended.
    ///
    /// The first call in a process also installs a handler for SIGURG, the signal that kicks vCPU threads.
    ///
    /// # Errors
    /// The host can't create the thread or install the signal handler.
    pub fn spawn<C, H>(index: u32, cpu: C, handler: H, ended: EventFd) -> Result<Self, Error>
    where
        C: Cpu + 'static,
        H: ExitHandler<C, Stop = S> + 'static,
    {
        Self::spawn_with(index, cpu, handler, ended, || Ok(()))
    }

    /// Like [`spawn`](Self::spawn), but the thread first calls `begin`, for example to set its CPU affinity. If `begin` fails,
    /// the thread ends with its error, without entering the guest.
    ///
    /// # Errors
    /// The host can't create the thread or install the signal handler.
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
            // A panic must end the vCPU like any other error, so that the machine is notified.
            let result = catch_unwind(AssertUnwindSafe(|| {
                // Signal masks are inherited, and the signal may have been blocked.
                let unblocked = unblock_signal(KICK).map_err(|error| io::Error::other(format!("{error:?}")));
                unblocked.and_then(|()| begin()).map_err(|source| Error::Host { index, source })?;
                worker.work()
            }));
            shared.ended.store(true, Ordering::Release);
            // It can't fail: the eventfd's counter would have to reach 2^64 - 1.
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

    /// Index of the vCPU.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the vCPU has ended, so that [`join`](Self::join) doesn't wait for the guest.
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Pauses the vCPU: returns when it is out of the guest, with its last access complete, or has ended.
    pub fn pause(&self) {
        self.begin_pause().wait();
    }

    /// Starts a pause without waiting for it, so that several vCPUs can be paused at the same time.
    pub fn begin_pause(&self) -> PendingPause {
        let (acknowledge, acknowledged) = sync_channel(1);
        self.send(Command::Pause(acknowledge));
        PendingPause(acknowledged)
    }

    /// The state of the processor, or `None` if it has ended. A running vCPU leaves the guest briefly.
    pub fn report(&self) -> Option<VcpuReport> {
        self.begin_report().0.recv().ok()
    }

    /// Requests a report without waiting for it.
    pub(crate) fn begin_report(&self) -> PendingReport {
        let (sender, receiver) = sync_channel(1);
        self.send(Command::Report(sender));
        PendingReport(receiver)
    }

    /// Reads its state while it is paused, from any thread.
    pub(crate) fn state_reader(&self) -> StateReader {
        StateReader { index: self.index, commands: self.commands.clone() }
    }

    /// Resumes a paused vCPU. Has no effect on one that is running or has ended.
    pub fn resume(&self) {
        // No kick is needed: a paused thread waits for commands, and a running one ignores this one. If the thread has ended, the
        // send fails, which is fine.
        let _ = self.commands.send(Command::Resume);
    }

    /// Wakes a vCPU held by [`Flow::Hold`](crate::Flow::Hold). It enters the guest unless its handler's
    /// [`is_held`](ExitHandler::is_held) returns `true`.
    pub fn wake(&self) {
        self.shared.wakes.fetch_add(1, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Requests the vCPU to end with [`End::Stopped`]. [`join`](Self::join) waits for it.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    /// Waits until the vCPU ends, and returns why.
    ///
    /// # Errors
    /// KVM_RUN or the thread's setup failed, or the thread panicked.
    pub fn join(mut self) -> Result<End<S>, Error> {
        let index = self.index;
        let thread = self.thread.take().expect("only join and drop take it");
        thread.join().unwrap_or(Err(Error::Panicked { index }))
    }
}

impl<S> VcpuThread<S> {
    fn send(&self, command: Command) {
        // If the thread has ended, the send fails, which is fine.
        let _ = self.commands.send(command);
        self.shared.kicked.store(true, Ordering::Release);
        // Flag first, signal second: see ImmediateExit.
        self.shared.kick.set();
        if let Some(thread) = &self.thread {
            // Only a signal makes a guest that is running or halted leave KVM_RUN. It isn't an error if the thread has ended.
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

/// A pause in progress.
#[derive(Debug)]
#[must_use = "the vCPU may be running until `wait` returns"]
pub struct PendingPause(Receiver<()>);

impl PendingPause {
    /// Returns when the vCPU is paused or has ended.
    pub fn wait(self) {
        // An error means that the thread has ended.
        let _ = self.0.recv();
    }

    /// Like [`wait`](Self::wait), but returns `false` if the vCPU is still in the guest after `timeout`.
    pub fn wait_within(self, timeout: Duration) -> bool {
        self.0.recv_timeout(timeout) != Err(RecvTimeoutError::Timeout)
    }
}

/// A report that has been requested.
pub(crate) struct PendingReport(Receiver<VcpuReport>);

impl PendingReport {
    /// Returns `None` if the vCPU is still in the guest after `timeout`, or has ended.
    pub(crate) fn wait_within(self, timeout: Duration) -> Option<VcpuReport> {
        self.0.recv_timeout(timeout).ok()
    }
}

/// Reads the state of one vCPU.
#[derive(Clone)]
pub(crate) struct StateReader {
    index: u32,
    commands: Sender<Command>,
}

impl StateReader {
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Requests the state without waiting for it.
    pub(crate) fn begin(&self, registers: &Arc<[u32]>) -> PendingState {
        let (sender, receiver) = sync_channel(1);
        // No kick is needed, as for a resume.
        let _ = self.commands.send(Command::Save(Arc::clone(registers), sender));
        PendingState { index: self.index, states: receiver }
    }
}

/// A state that has been requested.
pub(crate) struct PendingState {
    index: u32,
    states: Receiver<Result<VcpuState, vmm_kvm::Error>>,
}

impl PendingState {
    pub(crate) fn wait(self) -> Result<VcpuState, Error> {
        let running = || Error::NotPaused { index: self.index };
        Ok(self.states.recv().map_err(|_| running())??)
    }
}

/// The state of the thread.
struct Worker<C, H> {
    cpu: C,
    handler: H,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
}

/// The result of handling commands.
enum Requested {
    Run,
    Stop,
}

impl<C: Cpu, H: ExitHandler<C>> Worker<C, H> {
    fn work(mut self) -> Result<End<H::Stop>, Error> {
        if let Requested::Stop = self.wait_for_resume() {
            return Ok(End::Stopped);
        }
        // While held: the number of wakes when the hold began.
        let mut held_at = None;
        loop {
            if let Some(wakes) = held_at {
                self.wait_for_wake(wakes);
                // Read before `is_held` is called, so that a wake after the call isn't lost.
                let now = self.wakes();
                if now == wakes {
                    // Kicked while held: complete the access without entering the guest.
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
                    if let Requested::Stop = self.handle_commands() {
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

    /// Handles pending commands.
    fn handle_commands(&mut self) -> Requested {
        // Cleared before the channel is read: a command sent later sets both again.
        self.shared.kick.clear();
        self.shared.kicked.store(false, Ordering::Release);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Pause(acknowledge) => {
                    let _ = acknowledge.send(());
                    if let Requested::Stop = self.wait_for_resume() {
                        return Requested::Stop;
                    }
                    self.cpu.notify_pause();
                }
                Command::Report(report) => {
                    let _ = report.send(self.cpu.report());
                }
                // It isn't paused, and has no state of one moment: the sender is told so by its channel's end.
                Command::Save(..) | Command::Resume => {}
                Command::Stop => return Requested::Stop,
            }
        }
        Requested::Run
    }

    /// Waits, out of the guest, for a command to resume or stop.
    fn wait_for_resume(&mut self) -> Requested {
        loop {
            match self.commands.recv() {
                Ok(Command::Pause(acknowledge)) => {
                    let _ = acknowledge.send(());
                }
                Ok(Command::Report(report)) => {
                    let _ = report.send(self.cpu.report());
                }
                Ok(Command::Save(registers, state)) => {
                    let _ = state.send(self.cpu.state(&registers));
                }
                Ok(Command::Resume) => return Requested::Run,
                // Without a handle, no command could stop the thread.
                Ok(Command::Stop) | Err(_) => return Requested::Stop,
            }
        }
    }
}
