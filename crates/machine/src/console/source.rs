//! The console as an event source.

mod client;
mod output;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc::Sender;
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events};
use tracing::{error, info, warn};
use vmm_bus::Overflow;
use vmm_virtio::TerminalSize;

use super::departed::DepartedClient;
use super::keys::{self, Command};
use super::line::Line;
use super::link::Link;
use super::name::ConsoleName;
use super::pace::Pace;
use super::peer::{OpenError, Peer};
use super::target::OpenTarget;
use super::typed::{INPUT_LEN, TypedInput};
use crate::fd::HostFd;
use crate::message::Message;
use crate::transfer::Transfer;
use crate::watch::{self, ArmOutcome, Watch};
use crate::watched::Watched;
use vmm_hostio::terminal;

const INPUT: u32 = 0;
const OUTPUT: u32 = 1;
const WANTS_INPUT: u32 = 2;
const OUTPUT_READY: u32 = 3;
const ARRIVAL: u32 = 4;
const HANG_UP: u32 = 5;
const PATIENCE: u32 = 6;
const FOREGROUND: u32 = 7;
const PAUSE_OVER: u32 = 8;
const UNTAKEN: u32 = 9;

/// Bytes taken from the line at a time.
const CHUNK_LEN: usize = 4096;
/// How long a write in progress may take when the monitor ends.
const PATIENCE_AT_END: Duration = Duration::from_secs(1);
/// Transfers in a row before the event loop serves other sources.
const TURNS: usize = 16;

/// Moves bytes between a line of the guest and its peer on the host.
#[derive(Debug)]
pub(crate) struct Console {
    name: String,
    /// JSON path of its target in the config.
    field: String,
    line: Box<dyn Line>,
    messages: Sender<Message>,
    peer: Peer,
    link: Link,
    input: Watch,
    output: Watch,
    /// The line's eventfd for output. Not watched during a pause.
    ready: Watch,
    pace: Pace,
    arrival: Watch,
    /// A client that has shut down its sending side and may still read. Watched for its hang-up only.
    silent: Option<HostFd>,
    /// The client's hang-up, watched while it isn't read from.
    hang_up: Watch,
    departed: DepartedClient,
    /// Input from the host that the line hasn't taken yet.
    typed: TypedInput,
    patience: Watch,
    foreground: Watch,
    /// The terminal's size that was last passed to the line.
    size: TerminalSize,
    /// Taken from the line, not yet written: `chunk[start..end]`.
    chunk: Box<[u8; CHUNK_LEN]>,
    start: usize,
    end: usize,
    /// Output bytes that couldn't be written.
    lost: u64,
    /// The name of its pty has been announced.
    is_announced: bool,
    /// The log says that a client can't be connected.
    has_reported_waiting: bool,
    /// The machine isn't paused.
    guest_runs: bool,
}

impl Console {
    /// Connects an open target to `line`.
    pub(super) fn open(
        name: ConsoleName,
        target: OpenTarget,
        line: Box<dyn Line>,
        messages: Sender<Message>,
    ) -> Result<Self, OpenError> {
        let OpenTarget { end, peer, link, .. } = target;
        let failed = |source| OpenError::new(&name.field, &end, source);
        link.start().map_err(failed)?;
        let typed = TypedInput::new(Peer::is_terminal(&end)).map_err(failed)?;
        // A pty without a client would be reported without end.
        let edges = match &peer {
            Peer::Pty(_) => EventSet::EDGE_TRIGGERED,
            Peer::Fixed { .. } | Peer::Socket(_) => EventSet::empty(),
        };
        let pace = Pace::new(PAUSE_OVER).map_err(failed)?;
        let departed = DepartedClient::new(UNTAKEN).map_err(failed)?;
        let mut console = Self {
            name: name.label,
            field: name.field,
            line,
            messages,
            peer,
            link,
            input: Watch::new(INPUT, EventSet::IN | edges),
            output: Watch::new(OUTPUT, EventSet::OUT),
            ready: Watch::new(OUTPUT_READY, EventSet::IN),
            pace,
            arrival: Watch::new(ARRIVAL, EventSet::IN),
            silent: None,
            // epoll always reports EPOLLHUP.
            hang_up: Watch::new(HANG_UP, edges),
            departed,
            typed,
            patience: Watch::new(PATIENCE, EventSet::IN),
            foreground: Watch::new(FOREGROUND, EventSet::IN),
            size: TerminalSize::default(),
            chunk: Box::new([0; CHUNK_LEN]),
            start: 0,
            end: 0,
            lost: 0,
            is_announced: false,
            has_reported_waiting: false,
            guest_runs: true,
        };
        console.resized();
        Ok(console)
    }

    /// Truncates the console's file, unless an earlier machine has written to it. Returns whether the file had contents.
    pub(super) fn truncate(&mut self) -> Result<bool, OpenError> {
        self.peer.truncate(&self.field)
    }

    /// The guest starts: keeps a new file.
    pub(super) fn keep(&mut self) {
        self.peer.keep();
    }

    /// JSON path of its target in the config.
    pub(super) fn field(&self) -> &str {
        &self.field
    }

    /// The event loop has removed it, and will get it again.
    pub(super) fn leave_event_loop(&mut self) {
        self.watches().into_iter().for_each(Watch::forget);
        self.pace.forget();
        self.departed.forget();
    }

    /// Those of its own descriptors and of the peer's, without the timers of its parts.
    fn watches(&mut self) -> [&mut Watch; 7] {
        [
            &mut self.input,
            &mut self.output,
            &mut self.arrival,
            &mut self.hang_up,
            &mut self.ready,
            &mut self.patience,
            &mut self.foreground,
        ]
    }

    /// Why one of its descriptors isn't watched.
    fn take_failure(&mut self) -> Option<event_manager::Error> {
        let parts = self.pace.take_failure().or(self.departed.take_failure());
        self.watches().into_iter().fold(parts, |failure, watch| failure.or(watch.take_failure()))
    }

    /// Connects it to the next machine's line, which also gets the input that the guest hasn't read.
    pub(super) fn set_line(&mut self, line: Box<dyn Line>) {
        self.typed.take_back(&self.line.unread());
        self.line = line;
        self.size = TerminalSize::default();
        self.resized();
    }

    /// Its name and that of its pty, if it has one; only once.
    pub(crate) fn announcement(&mut self) -> Option<(String, String)> {
        let is_first = !std::mem::replace(&mut self.is_announced, true);
        let pty = self.peer.announcement().filter(|_| is_first)?;
        Some((self.name.clone(), pty))
    }

    /// Passes the terminal's size to the guest, if it is known and has changed.
    pub(crate) fn resized(&mut self) {
        if let Some(size) = self.peer.size().filter(|size| *size != self.size) {
            self.size = size;
            self.line.resize(size);
        }
    }

    /// Whether all the guest's output has been written, or nobody reads it.
    pub(crate) fn is_drained(&self) -> bool {
        let empty = self.start == self.end && self.line.is_drained();
        empty || self.link.output.is_none()
    }

    /// The guest has ended: ends a pause, so that its last output is written now.
    pub(crate) fn hurry(&mut self) {
        self.pace.hurry();
    }

    #[cfg(test)]
    pub(super) fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }

    /// Whether output is written to a client.
    #[cfg(test)]
    pub(super) fn has_reader(&self) -> bool {
        self.link.output.is_some()
    }

    /// The pty isn't polled any more.
    #[cfg(test)]
    pub(super) fn stop_polling(&mut self) {
        let Peer::Pty(pty) = &mut self.peer else { unreachable!("only a pty is polled") };
        pty.timer.clear().unwrap();
    }

    #[cfg(test)]
    pub(super) fn departed(&mut self) -> &mut DepartedClient {
        &mut self.departed
    }

    fn send(&self, message: Message) {
        // The supervisor owns the receiver and this source; the send can't fail while both exist.
        let _ = self.messages.send(message);
    }

    /// Moves input to the guest until one side blocks.
    fn pump_input(&mut self, ops: &mut EventOps<'_>) {
        for _ in 0..TURNS {
            if let Some(lost) = self.typed.deliver(&*self.line) {
                self.notify(&format!("the guest reads its input again; {lost} bytes were lost"));
            }
            let room = self.typed.room(&*self.line);
            let Some(fd) = &self.link.input else { return };
            if room == 0 {
                // The line's eventfd ends this, or a terminal's timer, or the client's hang-up.
                self.input.disarm(fd, ops);
                if let Some(timer) = self.typed.patience() {
                    self.patience.arm(timer, ops);
                }
                if !matches!(self.peer, Peer::Fixed { .. }) && !self.departed.is_draining() {
                    self.hang_up.arm(fd, ops);
                }
                return;
            }
            self.hang_up.disarm(fd, ops);
            if self.is_background() {
                return self.await_foreground(ops);
            }
            let mut bytes = [0; INPUT_LEN];
            match fd.read(&mut bytes[..room]) {
                // Another job has just become the terminal's foreground job.
                Transfer::Ended if self.is_background() => return self.await_foreground(ops),
                Transfer::Moved(len) => {
                    self.typed(&bytes[..len]);
                    if self.departed.relax(ops) {
                        self.await_arrival(ops);
                    }
                }
                Transfer::Blocked => {
                    self.input.arm(fd, ops);
                    return;
                }
                Transfer::Ended => return self.input_ended(ops),
                Transfer::Failed(errno) => {
                    error!("{} input: {}", self.name, errno.desc());
                    return self.input_ended(ops);
                }
            }
        }
        // There may be more. epoll is level-triggered; for a pty, and for a file that it can't watch, the eventfd brings us back.
        if let Some(fd) = &self.link.input
            && (self.input.arm(fd, ops) == ArmOutcome::AlwaysReady || matches!(self.peer, Peer::Pty(_)))
        {
            // Can't be full: the counter would have to reach 2^64 - 1.
            let _ = self.line.wants_input().write(1);
        }
    }

    /// Whether this is a background job of the terminal: a read would take the foreground job's keys, and fails with EIO.
    fn is_background(&self) -> bool {
        let input = self.link.input.as_ref().filter(|_| self.typed.is_terminal());
        input.is_some_and(terminal::is_background)
    }

    /// Stops reading the terminal until the timer expires.
    fn await_foreground(&mut self, ops: &mut EventOps<'_>) {
        if let Some(fd) = &self.link.input {
            self.input.disarm(fd, ops);
        }
        if let Some(timer) = self.typed.start_background_timer() {
            self.foreground.arm(timer, ops);
        }
    }

    /// The timer has expired: checks whether this is the foreground job again.
    fn look_for_foreground(&mut self, ops: &mut EventOps<'_>) {
        if let Some(timer) = self.typed.background_timer() {
            // Unwatched rather than read: the timerfd is blocking, and may have been reset.
            self.foreground.disarm(timer, ops);
        }
        if !self.is_background() {
            terminal::ensure_raw();
        }
        self.pump_input(ops);
    }

    fn typed(&mut self, bytes: &[u8]) {
        let (messages, line) = (&self.messages, &*self.line);
        self.typed.push(bytes, |command| {
            let message = match command {
                Command::Help => return print_notice(line, keys::HELP),
                Command::Key(key) => Message::Key(key),
            };
            // The supervisor owns the receiver and this source; the send can't fail while both exist.
            let _ = messages.send(message);
        });
    }

    /// Too much input has waited for too long: from now on the terminal is read even if input is lost.
    fn patience_expired(&mut self, ops: &mut EventOps<'_>) {
        if let Some(timer) = self.typed.patience() {
            // Unwatched rather than read: the timerfd is blocking, and may have been reset.
            self.patience.disarm(timer, ops);
        }
        if self.typed.start_dropping() {
            self.notify("the guest reads its input too slowly; further input is lost, Ctrl-A x quits");
        }
        self.pump_input(ops);
    }

    /// Whether the guest, which has a time limit for some input, runs at all.
    pub(crate) fn set_guest_runs(&mut self, runs: bool) {
        self.guest_runs = runs;
    }

    /// Shows a line on the terminal, between the guest's output. Does nothing if there is no terminal.
    pub(crate) fn notify(&self, text: &str) {
        if self.typed.is_terminal() {
            print_notice(&*self.line, text);
        }
    }

    /// The link's input has ended. With a fixed peer the guest goes on without input; a pty and a socket wait for the next
    /// client.
    fn input_ended(&mut self, ops: &mut EventOps<'_>) {
        if let (Peer::Pty(_), Some(fd)) = (&self.peer, &self.link.input) {
            self.input.arm(fd, ops);
            return self.hung_up(ops);
        }
        let Some(fd) = self.link.input.take() else { return };
        self.input.disarm(&fd, ops);
        match &self.peer {
            Peer::Fixed { .. } => info!("{} input has ended", self.name),
            Peer::Pty(_) => {}
            Peer::Socket(_) => {
                self.hang_up.arm(&fd, ops);
                self.silent = Some(fd);
            }
        }
    }
}

impl Watched for Console {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        ops.add(Events::with_data(self.line.wants_input(), WANTS_INPUT, EventSet::IN))?;
        self.ready.arm(self.line.output_ready(), ops);
        let is_fixed = matches!(self.peer, Peer::Fixed { .. });
        if is_fixed || self.link.output.is_some() {
            // Ignored: a change to `Hold` never has to wake a vCPU.
            let _ = self.line.set_overflow(Overflow::Hold);
        } else {
            // The new line doesn't know yet that nobody reads it. Input of a client that has gone stays for the guest.
            self.stop_output(ops);
        }
        let has_client =
            self.link.output.is_some() || matches!(self.peer, Peer::Socket(_)) && self.link.input.is_some();
        if !is_fixed && !has_client {
            self.await_arrival(ops);
        }
        if let Some(fd) = &self.silent {
            self.hang_up.arm(fd, ops);
        }
        if self.departed.is_draining() {
            self.await_arrival(ops);
        }
        self.pump_output(ops);
        self.pump_input(ops);
        self.take_failure().map_or(Ok(()), Err)
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            INPUT => {
                if self.typed.is_terminal() {
                    // A stopped job that was continued in the background gets no signal when it moves to the foreground.
                    terminal::ensure_raw();
                }
                self.pump_input(ops);
            }
            OUTPUT => self.pump_output(ops),
            HANG_UP => self.hung_up(ops),
            UNTAKEN => self.drop_departed_input(ops),
            PATIENCE => self.patience_expired(ops),
            FOREGROUND => self.look_for_foreground(ops),
            WANTS_INPUT => {
                // Non-blocking; an error means that the count has been read already.
                let _ = self.line.wants_input().read();
                self.pump_input(ops);
            }
            OUTPUT_READY => {
                let _ = self.line.output_ready().read();
                self.pump_output(ops);
            }
            PAUSE_OVER => self.end_pause(ops),
            ARRIVAL => self.arrived(ops),
            other => warn!("{}: event with unknown token {other}", self.name),
        }
        watch::log(self.take_failure());
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.lost += self.write_rest() as u64;
        let lost = self.lost + self.line.lost();
        if self.lost > 0 {
            error!("{} output: {lost} bytes were lost", self.name);
        }
    }
}

fn print_notice(line: &dyn Line, text: &str) {
    line.push_output(format!("\r\n[{text}]\r\n").as_bytes());
}

/// A raw descriptor that implements [`AsRawFd`].
struct Raw(RawFd);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}
