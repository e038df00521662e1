//! A console's input that the guest hasn't read yet.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use vmm_sys_util::timerfd::TimerFd;

use super::keys::{Command, Keys};
use super::line::Line;

/// Bytes read from the host at a time; more than a UART ever has room for.
pub(super) const INPUT_LEN: usize = 1024;
/// Bytes buffered for a guest that reads slowly. After a paste of up to this length the monitor's keys still work at once.
const KEPT_LEN: usize = 4 << 20;
/// How long a full buffer may stay more than half full before further input is dropped. Without this limit a guest that reads a
/// little now and then could block the monitor's keys for any time.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a background job checks whether it is in the foreground again: no signal reports that.
const BACKGROUND_POLL: Duration = Duration::from_millis(100);

/// Input on its way to the guest.
///
/// From a pipe, a file, a pty or a socket no more is read than the guest has room for, so that the writer waits. A terminal at
/// standard input is always read, because the monitor's keys are part of its input.
#[derive(Debug)]
pub(super) struct TypedInput {
    bytes: VecDeque<u8>,
    terminal: Option<Terminal>,
}

#[derive(Debug)]
struct Terminal {
    keys: Keys,
    /// Size of the buffer.
    kept_len: usize,
    /// Runs from when the buffer is full until it is half empty.
    patience: TimerFd,
    is_timing: bool,
    /// Runs while this is a background job of the terminal.
    background: TimerFd,
    /// Input is dropped because the guest reads too little.
    is_dropping: bool,
    lost: u64,
}

impl TypedInput {
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new(is_terminal: bool) -> io::Result<Self> {
        Self::keeping(KEPT_LEN, is_terminal)
    }

    fn keeping(kept_len: usize, is_terminal: bool) -> io::Result<Self> {
        let terminal = if is_terminal {
            let patience = TimerFd::new().map_err(io::Error::from)?;
            let keys = Keys::default();
            let background = TimerFd::new().map_err(io::Error::from)?;
            Some(Terminal {
                keys,
                kept_len,
                patience,
                is_timing: false,
                background,
                is_dropping: false,
                lost: 0,
            })
        } else {
            None
        };
        Ok(Self { bytes: VecDeque::with_capacity(INPUT_LEN), terminal })
    }

    /// Whether it comes from a terminal, and so contains the monitor's keys.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Gives `line` as much as it takes. When this ends a phase of dropping, returns the number of dropped bytes.
    pub(super) fn deliver(&mut self, line: &dyn Line) -> Option<u64> {
        if self.bytes.is_empty() {
            return None;
        }
        loop {
            let taken = line.send(self.bytes.as_slices().0);
            self.bytes.drain(..taken);
            if taken == 0 || self.bytes.is_empty() {
                break;
            }
        }
        if self.bytes.is_empty() {
            // Frees the memory of a large paste.
            self.bytes.shrink_to(INPUT_LEN);
        }
        let terminal = self.terminal.as_mut()?;
        // The threshold for stopping the timer and for ending a phase of dropping.
        if self.bytes.len() > terminal.kept_len / 2 {
            return None;
        }
        terminal.stop_waiting();
        let lost = std::mem::take(&mut terminal.lost);
        std::mem::take(&mut terminal.is_dropping).then_some(lost)
    }

    /// Bytes to read from the host now. If 0, try again when the line wants input, or when [`patience`](Self::patience) expires.
    pub(super) fn room(&mut self, line: &dyn Line) -> usize {
        let Some(terminal) = &mut self.terminal else {
            return if self.bytes.is_empty() { line.room().min(INPUT_LEN) } else { 0 };
        };
        if terminal.is_dropping {
            return INPUT_LEN;
        }
        let room = terminal.kept_len.saturating_sub(self.bytes.len()).min(INPUT_LEN);
        if room == 0 {
            terminal.start_waiting();
        }
        room
    }

    /// Adds input, at most [`room`](Self::room) bytes, and passes the monitor's keys to `command`.
    pub(super) fn push(&mut self, typed: &[u8], command: impl FnMut(Command)) {
        let Some(terminal) = &mut self.terminal else {
            self.bytes.extend(typed);
            return;
        };
        let mut guest = Vec::with_capacity(typed.len());
        terminal.keys.split(typed, &mut guest, command);
        // Once something has been dropped, everything is until the guest catches up: no gap in the middle.
        let room = if terminal.is_dropping { 0 } else { terminal.kept_len.saturating_sub(self.bytes.len()) };
        let kept = room.min(guest.len());
        self.bytes.extend(&guest[..kept]);
        terminal.lost += (guest.len() - kept) as u64;
    }

    /// Starts the timer of a background job; readable when it is time to check again.
    pub(super) fn start_background_timer(&mut self) -> Option<&TimerFd> {
        let terminal = self.terminal.as_mut()?;
        // Fails only for invalid times.
        let _ = terminal.background.reset(BACKGROUND_POLL, None);
        Some(&terminal.background)
    }

    /// The timer of [`start_background_timer`](Self::start_background_timer).
    pub(super) fn background_timer(&self) -> Option<&TimerFd> {
        self.terminal.as_ref().map(|terminal| &terminal.background)
    }

    /// Readable when a full buffer has waited for too long: then call [`start_dropping`](Self::start_dropping). Terminals only.
    pub(super) fn patience(&self) -> Option<&TimerFd> {
        self.terminal.as_ref().map(|terminal| &terminal.patience)
    }

    /// From now on drops input for which there is no room. Returns whether dropping has just started.
    pub(super) fn start_dropping(&mut self) -> bool {
        let Some(terminal) = &mut self.terminal else { return false };
        let was_timing = terminal.is_timing;
        terminal.stop_waiting();
        terminal.is_dropping |= was_timing;
        was_timing
    }

    /// Puts back delivered input that the guest hasn't read.
    pub(super) fn take_back(&mut self, unread: &[u8]) {
        unread.iter().rev().for_each(|byte| self.bytes.push_front(*byte));
    }

    /// Whether all input has been delivered.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Discards the input of a client that has gone.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }
}

impl Terminal {
    fn start_waiting(&mut self) {
        if !self.is_timing {
            // If the timer can't be set, dropping starts at once: the monitor's keys matter more.
            self.is_timing = true;
            self.is_dropping = self.patience.reset(PATIENCE, None).is_err();
        }
    }

    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.is_timing) {
            // If it has expired or can't be stopped, `start_dropping` does nothing.
            let _ = self.patience.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vmm_bus::{BusDevice, IrqLine};
    use vmm_devices::Uart;

    use super::*;
    use crate::message::Key;

    /// A UART whose guest reads no input until it enables the received data interrupt.
    fn deaf() -> Arc<Uart> {
        Arc::new(Uart::new(IrqLine::new().unwrap()).unwrap())
    }

    fn listen(uart: &Uart) {
        let _ = uart.write(1, &[1]);
    }

    fn no_command(command: Command) {
        panic!("{command:?}");
    }

    #[test]
    fn terminal_is_read_while_the_guest_takes_nothing() {
        let (uart, mut typed) = (deaf(), TypedInput::new(true).unwrap());
        assert_eq!(typed.room(&uart), INPUT_LEN);
        let mut commands = Vec::new();
        typed.push(b"hello\x01x", |command| commands.push(command));
        assert_eq!(commands, [Command::Key(Key::Quit)]);
        assert_eq!(typed.deliver(&uart), None);
        listen(&uart);
        assert_eq!(typed.deliver(&uart), None);
        assert_eq!(uart.room(), 64 - 5);
    }

    #[test]
    fn pipe_is_not_read_while_the_guest_takes_nothing() {
        let (uart, mut typed) = (deaf(), TypedInput::new(false).unwrap());
        assert_eq!(typed.room(&uart), 0);
        listen(&uart);
        assert_eq!(typed.room(&uart), 64);
        typed.push(b"\x01x", no_command);
        assert_eq!(typed.room(&uart), 0, "first what was read");
        assert_eq!((typed.deliver(&uart), typed.room(&uart)), (None, 62));
    }

    /// The buffer size of [`full`].
    const KEPT: usize = 4 * INPUT_LEN;
    const RELIEVED: usize = KEPT / 2;

    /// A terminal with a small, full buffer.
    fn full() -> TypedInput {
        let mut typed = TypedInput::keeping(KEPT, true).unwrap();
        (0..4).for_each(|_| typed.push(&[b'x'; INPUT_LEN], no_command));
        typed
    }

    /// Has the guest read until at most `waiting` bytes are buffered.
    fn take_until(typed: &mut TypedInput, uart: &Arc<Uart>, waiting: usize) -> Option<u64> {
        let mut lost = None;
        while typed.bytes.len() > waiting {
            uart.read(0, &mut [0]);
            lost = lost.or(typed.deliver(uart));
        }
        lost
    }

    #[test]
    fn terminal_keeps_4_mib_and_waits_before_more_is_lost() {
        let (uart, mut typed) = (deaf(), TypedInput::new(true).unwrap());
        (0..4 << 10).for_each(|_| typed.push(&[b'x'; 1 << 10], no_command));
        assert_eq!(typed.room(&uart), 0);
        assert!(typed.start_dropping());
        assert!(!typed.start_dropping(), "dropping has started already");
        assert_eq!(typed.room(&uart), INPUT_LEN);
        let mut commands = Vec::new();
        typed.push(b"abc\x01s", |command| commands.push(command));
        assert_eq!(commands, [Command::Key(Key::Status)]);
    }

    #[test]
    fn terminal_of_a_guest_that_was_given_up_loses_everything_until_half_of_what_waits_is_taken() {
        let (uart, mut typed) = (deaf(), full());
        listen(&uart);
        assert_eq!(typed.room(&uart), 0);
        assert!(typed.start_dropping());
        assert_eq!(take_until(&mut typed, &uart, RELIEVED + 1), None);
        typed.push(b"abc", no_command);
        assert_eq!(typed.bytes.len(), RELIEVED + 1, "what comes after something lost is lost too");
        assert_eq!(take_until(&mut typed, &uart, RELIEVED), Some(3));
        typed.push(b"abc", no_command);
        assert_eq!(typed.bytes.len(), RELIEVED + 3);
    }

    #[test]
    fn terminal_gives_back_the_room_of_a_paste_that_was_taken() {
        let (uart, mut typed) = (deaf(), full());
        listen(&uart);
        take_until(&mut typed, &uart, 0);
        assert!(typed.bytes.capacity() < KEPT, "{}", typed.bytes.capacity());
    }

    #[test]
    fn terminal_of_a_guest_that_takes_half_in_time_is_waited_for_anew() {
        let (uart, mut typed) = (deaf(), full());
        listen(&uart);
        assert_eq!(typed.room(&uart), 0);
        assert_eq!(take_until(&mut typed, &uart, RELIEVED), None);
        assert!(!typed.start_dropping(), "the timer had expired in the same moment");
        assert_eq!(typed.room(&uart), INPUT_LEN);
    }

    /// Else the monitor's keys could be delayed for hours.
    #[test]
    fn terminal_of_a_guest_that_takes_less_in_time_is_given_up() {
        let (uart, mut typed) = (deaf(), full());
        listen(&uart);
        assert_eq!(typed.room(&uart), 0);
        assert_eq!(take_until(&mut typed, &uart, RELIEVED + 1), None);
        assert!(typed.start_dropping());
    }
}
