//! The console as a subscriber of the event loop.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc::Sender;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::io::ioctl_fionread;
use tracing::{error, info, warn};
use vmm_bus::Overflow;
use vmm_virtio::{HostEnd, TerminalSize};

use super::departed::Departed;
use super::keys::{self, Command};
use super::line::Line;
use super::name::Name;
use super::pace::Pace;
use super::peer::{Link, OpenError, Peer};
use super::typed::{INPUT_LEN, Typed};
use crate::fd::HostFd;
use crate::message::Message;
use crate::transfer::Transfer;
use crate::watch::{Armed, Watch};
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

/// Bytes taken from the line at once.
const CHUNK_LEN: usize = 4096;
/// Transfers in a row before the other sources get their turn.
const TURNS: usize = 16;

/// Moves bytes between a line of the guest's and the host.
#[derive(Debug)]
pub(crate) struct Console {
    name: String,
    /// The field of the config that asks for it.
    field: String,
    line: Box<dyn Line>,
    messages: Sender<Message>,
    peer: Peer,
    link: Link,
    input: Watch,
    output: Watch,
    /// The line's word that it has output. Not listened to during a pause.
    ready: Watch,
    pace: Pace,
    arrival: Watch,
    /// A client that sends no more and may still read. Watched for its end only.
    silent: Option<HostFd>,
    /// The client's end, while it isn't read from.
    hang_up: Watch,
    departed: Departed,
    /// Read from the host, not yet taken by the line.
    typed: Typed,
    patience: Watch,
    foreground: Watch,
    /// The terminal's size as the line was told last.
    size: TerminalSize,
    /// Taken from the line, not yet written: `chunk[start..end]`.
    chunk: Box<[u8; CHUNK_LEN]>,
    start: usize,
    end: usize,
    /// Bytes that the host refused.
    lost: u64,
    /// The user knows the name of its pty.
    is_announced: bool,
}

impl Console {
    /// Opens the host's side of `line`.
    pub(super) fn open(
        name: Name,
        end: &HostEnd,
        line: Box<dyn Line>,
        messages: Sender<Message>,
    ) -> Result<Self, OpenError> {
        let (peer, link) = Peer::open(&name.field, end)?;
        let failed = |source| OpenError { field: name.field.clone(), target: end.to_string(), source };
        let typed = Typed::new(Peer::is_terminal(end)).map_err(failed)?;
        let pace = Pace::new(PAUSE_OVER).map_err(failed)?;
        let departed = Departed::new(UNTAKEN).map_err(failed)?;
        let mut console = Self {
            name: name.line,
            field: name.field,
            line,
            messages,
            peer,
            link,
            input: Watch::new(INPUT, EventSet::IN),
            output: Watch::new(OUTPUT, EventSet::OUT),
            ready: Watch::new(OUTPUT_READY, EventSet::IN),
            pace,
            arrival: Watch::new(ARRIVAL, EventSet::IN),
            silent: None,
            // epoll reports a hang-up unasked.
            hang_up: Watch::new(HANG_UP, EventSet::empty()),
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
        };
        console.resized();
        Ok(console)
    }

    /// The guest starts: what was in a file before goes, unless the guest has started here already.
    pub(crate) fn begin(&mut self) -> Result<(), OpenError> {
        self.peer.begin(&self.field)
    }

    /// The field of the config that asks for it.
    pub(super) fn field(&self) -> &str {
        &self.field
    }

    /// The event loop has removed it, and will have it again.
    pub(super) fn leave_event_loop(&mut self) {
        let (peer, own) = (
            [&mut self.input, &mut self.output, &mut self.arrival, &mut self.hang_up],
            [&mut self.ready, &mut self.patience, &mut self.foreground],
        );
        peer.into_iter().chain(own).for_each(Watch::forget);
        self.pace.forget();
        self.departed.forget();
    }

    /// Goes on at another machine's line. What was typed and not taken yet is for that one.
    pub(super) fn set_line(&mut self, line: Box<dyn Line>) {
        self.typed.take_back(&self.line.unread());
        self.line = line;
        self.size = TerminalSize::default();
        self.resized();
    }

    /// What the user calls it, and the name of a pty that was made for it; once.
    pub(crate) fn announcement(&mut self) -> Option<(String, String)> {
        let is_news = !std::mem::replace(&mut self.is_announced, true);
        let pty = self.peer.announcement().filter(|_| is_news)?;
        Some((self.name.clone(), pty))
    }

    /// Tells the guest how large the terminal is, if that is known and has changed.
    pub(crate) fn resized(&mut self) {
        if let Some(size) = self.peer.size().filter(|size| *size != self.size) {
            self.size = size;
            self.line.resize(size);
        }
    }

    /// Whether all that the guest printed has been given to whoever is there to read it.
    pub(crate) fn is_drained(&self) -> bool {
        let empty = self.start == self.end && self.line.is_drained();
        empty || self.link.output.is_none()
    }

    /// What was printed is wanted now: the guest has ended.
    pub(crate) fn hurry(&mut self) {
        self.pace.hurry();
    }

    #[cfg(test)]
    pub(super) fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }

    #[cfg(test)]
    pub(super) fn departed(&mut self) -> &mut Departed {
        &mut self.departed
    }

    fn tell(&self, message: Message) {
        // The receiver lives in the same machine; if it has gone, so have we.
        let _ = self.messages.send(message);
    }

    /// Host to guest, as much as goes.
    fn pump_input(&mut self, ops: &mut EventOps<'_>) {
        for _ in 0..TURNS {
            if let Some(lost) = self.typed.deliver(&*self.line) {
                self.say(&format!("the guest takes input again; {lost} bytes were lost"));
            }
            let room = self.typed.room(&*self.line);
            let Some(fd) = &self.link.input else { return };
            if room == 0 {
                // The line says when; of a terminal the timer may be first, and a client may leave.
                self.input.disarm(fd, ops);
                if let Some(timer) = self.typed.patience() {
                    self.patience.arm(timer, ops);
                }
                if matches!(self.peer, Peer::Socket(_)) && !self.departed.is_heard() {
                    self.hang_up.arm(fd, ops);
                }
                return;
            }
            self.hang_up.disarm(fd, ops);
            if self.is_away() {
                return self.await_foreground(ops);
            }
            let mut bytes = [0; INPUT_LEN];
            match fd.read(&mut bytes[..room]) {
                // It has just become another job's.
                Transfer::Ended if self.is_away() => return self.await_foreground(ops),
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
        // There may be more. epoll says so again, or, for a file that it can't watch, we do.
        if let Some(fd) = &self.link.input
            && self.input.arm(fd, ops) == Armed::AlwaysReady
        {
            // Can't be full: the counter would have to reach 2^64 - 1.
            let _ = self.line.wants_input().write(1);
        }
    }

    /// Whether the terminal is another job's: to read it would take that one's keys, and the kernel refuses it.
    fn is_away(&self) -> bool {
        let input = self.link.input.as_ref().filter(|_| self.typed.is_terminal());
        input.is_some_and(terminal::is_background)
    }

    /// Leaves the terminal alone until it is time to look again.
    fn await_foreground(&mut self, ops: &mut EventOps<'_>) {
        if let Some(fd) = &self.link.input {
            self.input.disarm(fd, ops);
        }
        if let Some(timer) = self.typed.go_away() {
            self.foreground.arm(timer, ops);
        }
    }

    /// It is time to look again.
    fn look_for_foreground(&mut self, ops: &mut EventOps<'_>) {
        if let Some(timer) = self.typed.away() {
            // Watched again when it runs again: read, it would block.
            self.foreground.disarm(timer, ops);
        }
        if !self.is_away() {
            terminal::ensure_raw();
        }
        self.pump_input(ops);
    }

    fn typed(&mut self, bytes: &[u8]) {
        let (messages, line) = (&self.messages, &*self.line);
        self.typed.push(bytes, |command| {
            let message = match command {
                Command::Help => return say(line, keys::HELP),
                Command::Key(key) => Message::Key(key),
            };
            // The receiver lives in the same machine; if it has gone, so have we.
            let _ = messages.send(message);
        });
    }

    /// The guest has taken nothing for long, and the terminal must be read.
    fn lose_patience(&mut self, ops: &mut EventOps<'_>) {
        if let Some(timer) = self.typed.patience() {
            // Watched again when it runs again: read, it would block.
            self.patience.disarm(timer, ops);
        }
        if self.typed.give_up() {
            self.say("the guest takes too little input; what is typed from here on is lost, Ctrl-A x quits");
        }
        self.pump_input(ops);
    }

    /// Says something to the person at the terminal, between what the guest says.
    pub(crate) fn say(&self, text: &str) {
        if self.typed.is_terminal() {
            say(&*self.line, text);
        }
    }

    /// No more input from this link. A fixed peer's guest runs on without; another client may come.
    fn input_ended(&mut self, ops: &mut EventOps<'_>) {
        let Some(fd) = self.link.input.take() else { return };
        self.input.disarm(&fd, ops);
        match &self.peer {
            Peer::Fixed { .. } => info!("{} input has ended", self.name),
            Peer::Pty { .. } => self.disconnect(ops),
            Peer::Socket(_) => {
                self.hang_up.arm(&fd, ops);
                self.silent = Some(fd);
            }
        }
    }

    /// Guest to host, as much as goes.
    fn pump_output(&mut self, ops: &mut EventOps<'_>) {
        for _ in 0..TURNS {
            // Without a link the line keeps what it has.
            let Some(fd) = &self.link.output else { return };
            if self.start == self.end {
                if self.pace.is_pausing() {
                    self.output.disarm(fd, ops);
                    return;
                }
                let taken = self.line.take(&mut self.chunk[..]);
                (self.start, self.end) = (0, taken.len);
                if taken.wake {
                    self.tell(Message::Wake);
                }
                if taken.len == 0 {
                    self.output.disarm(fd, ops);
                    return;
                }
                if self.pace.took(taken.len, ops) {
                    self.ready.disarm(self.line.output_ready(), ops);
                }
            }
            match fd.write(&self.chunk[self.start..self.end]) {
                Transfer::Moved(len) => self.start += len,
                Transfer::Blocked => {
                    self.output.arm(fd, ops);
                    return;
                }
                Transfer::Ended => return self.output_ended(ops),
                Transfer::Failed(errno) => self.lose(errno.desc()),
            }
        }
        // More may wait. Once more, after the other sources.
        let _ = self.line.output_ready().write(1);
    }

    /// Looks for output again, and listens for more.
    fn end_pause(&mut self, ops: &mut EventOps<'_>) {
        self.pace.over();
        self.ready.arm(self.line.output_ready(), ops);
        self.pump_output(ops);
    }

    /// The host refuses what the guest prints, for instance because a disk is full. The guest goes on.
    fn lose(&mut self, reason: &str) {
        if self.lost == 0 {
            let name = match &self.peer {
                Peer::Fixed { name, .. } | Peer::Pty { name, .. } => name.clone(),
                Peer::Socket(socket) => socket.path().display().to_string(),
            };
            error!("{} output to {name}: {reason}; what the guest prints is lost from here on", self.name);
        }
        self.lost += (self.end - self.start) as u64;
        self.start = self.end;
    }

    fn output_ended(&mut self, ops: &mut EventOps<'_>) {
        match &self.peer {
            Peer::Fixed { is_stdout: true, .. } => {
                if let Some(fd) = self.link.output.take() {
                    self.output.disarm(&fd, ops);
                }
                self.tell(Message::OutputGone);
            }
            Peer::Fixed { .. } => self.lose("the other end was closed"),
            // Who typed and left at once, as `echo reboot | nc` does, is heard to the end.
            Peer::Socket(_) if self.link.input.is_some() => self.stop_output(ops),
            Peer::Pty { .. } | Peer::Socket(_) => self.disconnect(ops),
        }
    }

    /// The client reads no more, but what it typed may still come. The newest output is kept for the next one.
    fn stop_output(&mut self, ops: &mut EventOps<'_>) {
        if let Some(fd) = self.link.output.take() {
            self.output.disarm(&fd, ops);
        }
        if self.line.set_overflow(Overflow::DropOldest) {
            self.tell(Message::Wake);
        }
    }

    /// A socket's client has gone, while it wasn't read from.
    fn hung_up(&mut self, ops: &mut EventOps<'_>) {
        let unread = self.link.input.as_ref().map(ioctl_fionread);
        let is_heard_out = self.typed.is_empty() && matches!(unread, None | Some(Ok(0)));
        if is_heard_out {
            return self.disconnect(ops);
        }
        if let Some(fd) = &self.link.input {
            self.hang_up.disarm(fd, ops);
        }
        self.stop_output(ops);
        self.departed.begin();
        self.await_arrival(ops);
    }

    /// The guest has taken nothing for long of what a client typed who has left, and another one waits.
    fn stop_hearing(&mut self, ops: &mut EventOps<'_>) {
        warn!("{}: the guest takes no input; what a client typed before it left is lost", self.name);
        self.disconnect(ops);
    }

    /// The client has gone. Wait for another; the newest output is kept for it.
    fn disconnect(&mut self, ops: &mut EventOps<'_>) {
        let link = std::mem::take(&mut self.link);
        if let Some(fd) = &link.input {
            self.input.disarm(fd, ops);
            self.hang_up.disarm(fd, ops);
        }
        if let Some(fd) = &link.output {
            self.output.disarm(fd, ops);
        }
        if let Some(fd) = &self.silent.take() {
            self.hang_up.disarm(fd, ops);
        }
        drop(link);
        self.departed.end(ops);
        self.typed.clear();
        if self.line.set_overflow(Overflow::DropOldest) {
            self.tell(Message::Wake);
        }
        self.await_arrival(ops);
    }

    fn await_arrival(&mut self, ops: &mut EventOps<'_>) {
        if let Some(fd) = self.peer.arrival_fd() {
            self.arrival.arm(&Raw(fd), ops);
        }
    }

    fn arrived(&mut self, ops: &mut EventOps<'_>) {
        self.peer.acknowledge_arrival();
        if self.departed.is_heard() {
            if let Some(fd) = self.peer.arrival_fd() {
                self.arrival.disarm(&Raw(fd), ops);
            }
            if !self.departed.hurry(ops) {
                self.stop_hearing(ops);
            }
            return;
        }
        let Some(link) = self.peer.try_connect() else { return };
        info!("{} client has come", self.name);
        if let Some(fd) = self.peer.arrival_fd() {
            self.arrival.disarm(&Raw(fd), ops);
        }
        self.link = link;
        // To a larger bound nobody is woken.
        let _ = self.line.set_overflow(Overflow::Hold);
        self.resized();
        self.pump_output(ops);
        self.pump_input(ops);
    }
}

impl MutEventSubscriber for Console {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::with_data(self.line.wants_input(), WANTS_INPUT, EventSet::IN)) {
            error!("{}: epoll refuses an eventfd: {error}", self.name);
        }
        self.ready.arm(self.line.output_ready(), ops);
        let is_fixed = matches!(self.peer, Peer::Fixed { .. });
        if !is_fixed && self.link.input.is_none() && self.link.output.is_none() {
            return self.disconnect(ops);
        }
        if is_fixed || self.link.output.is_some() {
            // To a larger bound nobody is woken.
            let _ = self.line.set_overflow(Overflow::Hold);
        }
        if let Some(fd) = &self.silent {
            self.hang_up.arm(fd, ops);
        }
        if self.departed.is_heard() {
            self.await_arrival(ops);
        }
        self.pump_output(ops);
        self.pump_input(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            INPUT => {
                if self.typed.is_terminal() {
                    // A job that was stopped, and went on in the background, comes to the foreground without a signal.
                    terminal::ensure_raw();
                }
                self.pump_input(ops);
            }
            OUTPUT => self.pump_output(ops),
            HANG_UP => self.hung_up(ops),
            UNTAKEN => self.stop_hearing(ops),
            PATIENCE => self.lose_patience(ops),
            FOREGROUND => self.look_for_foreground(ops),
            WANTS_INPUT => {
                // Non-blocking; an error means that another turn took the count.
                let _ = self.line.wants_input().read();
                self.pump_input(ops);
            }
            OUTPUT_READY => {
                let _ = self.line.output_ready().read();
                self.pump_output(ops);
            }
            PAUSE_OVER => self.end_pause(ops),
            ARRIVAL => self.arrived(ops),
            other => warn!("{}: event with the unknown token {other}", self.name),
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let lost = self.lost + self.line.lost();
        if self.lost > 0 {
            error!("{} output: {lost} bytes were lost", self.name);
        }
    }
}

fn say(line: &dyn Line, text: &str) {
    line.say(format!("\r\n[{text}]\r\n").as_bytes());
}

/// A descriptor by its number.
struct Raw(RawFd);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}
