//! What was typed at a console and the guest hasn't taken yet.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use vmm_sys_util::timerfd::TimerFd;

use super::keys::{Command, Keys};
use super::line::Line;

/// Bytes read from the host at once; a UART never has room for so much.
pub(super) const INPUT_LEN: usize = 1024;
/// Bytes kept for a guest that is slower than whoever types. The monitor's keys are heard at once behind a paste of so much.
const KEPT_LEN: usize = 4 << 20;
/// How long so much may wait, whatever the guest takes meanwhile, before more is lost: longer, and a guest that takes a little now
/// and then would keep the monitor from its keys for as long as it likes.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a job in the background looks whether the terminal is its own again, which no signal tells.
const AWAY: Duration = Duration::from_millis(100);

/// Typed input on its way to the guest.
///
/// Of a pipe, a file, a pty or a socket no more is read than the guest has room for: its writer waits. A terminal at
/// standard input is always read, whatever the guest does, because the keys of the monitor are among what is typed.
#[derive(Debug)]
pub(super) struct Typed {
    bytes: VecDeque<u8>,
    terminal: Option<Terminal>,
}

#[derive(Debug)]
struct Terminal {
    keys: Keys,
    /// Bytes that are kept.
    kept_len: usize,
    /// Runs while all that is kept waits for the guest.
    patience: TimerFd,
    is_patient: bool,
    /// Runs while the terminal is another job's.
    away: TimerFd,
    /// What is typed is lost, since the guest takes too little.
    is_dropping: bool,
    lost: u64,
}

impl Typed {
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new(is_terminal: bool) -> io::Result<Self> {
        Self::keeping(KEPT_LEN, is_terminal)
    }

    fn keeping(kept_len: usize, is_terminal: bool) -> io::Result<Self> {
        let terminal = if is_terminal {
            let patience = TimerFd::new().map_err(io::Error::from)?;
            let keys = Keys::default();
            let away = TimerFd::new().map_err(io::Error::from)?;
            Some(Terminal { keys, kept_len, patience, is_patient: false, away, is_dropping: false, lost: 0 })
        } else {
            None
        };
        Ok(Self { bytes: VecDeque::with_capacity(INPUT_LEN), terminal })
    }

    /// Whether a person types it, and may mean the monitor.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Gives `line` as much as it takes. If the guest had been given up, returns how many bytes were lost.
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
            // Not for ever what a paste once took.
            self.bytes.shrink_to(INPUT_LEN);
        }
        let terminal = self.terminal.as_mut()?;
        // What may wait when the time ends, or when nothing is lost any more.
        if self.bytes.len() > terminal.kept_len / 2 {
            return None;
        }
        terminal.stop_waiting();
        let lost = std::mem::take(&mut terminal.lost);
        std::mem::take(&mut terminal.is_dropping).then_some(lost)
    }

    /// Bytes to read from the host now. If 0, the line tells when it takes some, and [`patience`](Self::patience) when that
    /// has taken too long.
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

    /// Takes what was read, at most [`room`](Self::room), and gives the monitor's part to `command`.
    pub(super) fn push(&mut self, typed: &[u8], command: impl FnMut(Command)) {
        let Some(terminal) = &mut self.terminal else {
            self.bytes.extend(typed);
            return;
        };
        let mut guest = Vec::with_capacity(typed.len());
        terminal.keys.split(typed, &mut guest, command);
        // Nothing of what comes after something that was lost.
        let room = if terminal.is_dropping { 0 } else { terminal.kept_len.saturating_sub(self.bytes.len()) };
        let kept = room.min(guest.len());
        self.bytes.extend(&guest[..kept]);
        terminal.lost += (guest.len() - kept) as u64;
    }

    /// Starts the timer of a terminal that is another job's: it can be read when it is time to look again.
    pub(super) fn go_away(&mut self) -> Option<&TimerFd> {
        let terminal = self.terminal.as_mut()?;
        // It fails for times that can't be.
        let _ = terminal.away.reset(AWAY, None);
        Some(&terminal.away)
    }

    /// The timer of [`go_away`](Self::go_away).
    pub(super) fn away(&self) -> Option<&TimerFd> {
        self.terminal.as_ref().map(|terminal| &terminal.away)
    }

    /// Can be read when too much has waited for too long: call [`give_up`](Self::give_up). On a terminal only.
    pub(super) fn patience(&self) -> Option<&TimerFd> {
        self.terminal.as_ref().map(|terminal| &terminal.patience)
    }

    /// Goes on reading, and loses what there is no room for. Whether that is news.
    pub(super) fn give_up(&mut self) -> bool {
        let Some(terminal) = &mut self.terminal else { return false };
        let is_news = terminal.is_patient;
        terminal.stop_waiting();
        terminal.is_dropping |= is_news;
        is_news
    }

    /// Takes back what was delivered last and not read.
    pub(super) fn take_back(&mut self, unread: &[u8]) {
        unread.iter().rev().for_each(|byte| self.bytes.push_front(*byte));
    }

    /// Whether the guest has taken all of it.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets what a client typed that has gone.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }
}

impl Terminal {
    fn start_waiting(&mut self) {
        if !self.is_patient {
            // A timer that can't be set gives the guest up at once: the keys of the monitor are worth more.
            self.is_patient = true;
            self.is_dropping = self.patience.reset(PATIENCE, None).is_err();
        }
    }

    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.is_patient) {
            // A timer that has expired, or can't be stopped, finds nobody waiting.
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

    /// A UART whose guest doesn't listen, until it enables the received data interrupt.
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
        let (uart, mut typed) = (deaf(), Typed::new(true).unwrap());
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
        let (uart, mut typed) = (deaf(), Typed::new(false).unwrap());
        assert_eq!(typed.room(&uart), 0);
        listen(&uart);
        assert_eq!(typed.room(&uart), 64);
        typed.push(b"\x01x", no_command);
        assert_eq!(typed.room(&uart), 0, "first what was read");
        assert_eq!((typed.deliver(&uart), typed.room(&uart)), (None, 62));
    }

    /// What the short ones keep.
    const KEPT: usize = 4 * INPUT_LEN;
    const RELIEVED: usize = KEPT / 2;

    /// A terminal that keeps little, and all of that typed.
    fn full() -> Typed {
        let mut typed = Typed::keeping(KEPT, true).unwrap();
        (0..4).for_each(|_| typed.push(&[b'x'; INPUT_LEN], no_command));
        typed
    }

    /// Has the guest read until so much waits.
    fn take_until(typed: &mut Typed, uart: &Arc<Uart>, waiting: usize) -> Option<u64> {
        let mut lost = None;
        while typed.bytes.len() > waiting {
            uart.read(0, &mut [0]);
            lost = lost.or(typed.deliver(uart));
        }
        lost
    }

    #[test]
    fn terminal_keeps_4_mib_and_waits_before_more_is_lost() {
        let (uart, mut typed) = (deaf(), Typed::new(true).unwrap());
        (0..4 << 10).for_each(|_| typed.push(&[b'x'; 1 << 10], no_command));
        assert_eq!(typed.room(&uart), 0);
        assert!(typed.give_up());
        assert!(!typed.give_up(), "it is no news any more");
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
        assert!(typed.give_up());
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
        assert!(!typed.give_up(), "the timer had expired in the same moment");
        assert_eq!(typed.room(&uart), INPUT_LEN);
    }

    /// The keys of the monitor would be heard hours later.
    #[test]
    fn terminal_of_a_guest_that_takes_less_in_time_is_given_up() {
        let (uart, mut typed) = (deaf(), full());
        listen(&uart);
        assert_eq!(typed.room(&uart), 0);
        assert_eq!(take_until(&mut typed, &uart, RELIEVED + 1), None);
        assert!(typed.give_up());
    }
}
