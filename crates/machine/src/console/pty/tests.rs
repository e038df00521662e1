//! A console in an event loop: COM1 at a pty.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use event_manager::SubscriberId;
use vmm_bus::{BusDevice, IrqLine, Outcome};
use vmm_config::Serial;
use vmm_devices::Uart;

use super::super::{Console, Lines, open_now};
use crate::event_loop::{EventLoop, Source};

/// A generous limit for events that come at once on an idle host.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes that a line keeps for the next client.
const KEPT_LEN: usize = 64 << 10;

/// COM1 at a pty that nobody has opened yet.
struct Machine {
    uart: Arc<Uart>,
    events: EventLoop,
    console: SubscriberId,
    pty: String,
}

fn uart() -> Arc<Uart> {
    Arc::new(Uart::new(IrqLine::new().unwrap()).unwrap())
}

fn opened(uart: &Arc<Uart>, kept: Vec<Console>) -> Console {
    let (messages, _) = mpsc::channel();
    let lines = Lines { serial: Serial::Pty, uart: uart.clone(), consoles: vec![] };
    open_now(lines, kept, &messages).unwrap().remove(0)
}

impl Machine {
    fn new() -> Self {
        let uart = uart();
        let mut console = opened(&uart, vec![]);
        let (_, pty) = console.announcement().unwrap();
        let mut events = EventLoop::new().unwrap();
        let console = events.add(Source::Console(Box::new(console))).unwrap();
        let mut machine = Self { uart, events, console, pty };
        machine.settle();
        machine
    }

    fn open_pty(&self) -> File {
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(&self.pty)
            .unwrap()
    }

    /// A client that the console has seen.
    fn connect(&mut self) -> File {
        let client = self.open_pty();
        while !self.console().has_reader() {
            self.wait();
        }
        client
    }

    /// The machine is reset.
    fn restart(&mut self) {
        let Source::Console(console) = self.events.remove(self.console).unwrap() else {
            unreachable!("it is the only subscriber")
        };
        self.uart = uart();
        let console = opened(&self.uart, vec![*console]);
        self.console = self.events.add(Source::Console(Box::new(console))).unwrap();
        self.settle();
    }

    fn console(&mut self) -> &mut Console {
        self.events.console(self.console).unwrap()
    }

    /// The guest enables the received data interrupt; until then it reads no input.
    fn listen(&self) {
        let _ = self.uart.write(1, &[1]);
    }

    /// What the guest can read now.
    fn read_by_guest(&self) -> Vec<u8> {
        let has_byte = || {
            let mut status = [0];
            self.uart.read(5, &mut status);
            status[0] & 1 != 0
        };
        let read = || {
            let mut byte = [0];
            self.uart.read(0, &mut byte);
            byte[0]
        };
        std::iter::from_fn(|| has_byte().then(read)).collect()
    }

    /// Prints the numbers of lines, until the guest is held or has printed `lines`.
    fn print_numbers(&mut self, lines: std::ops::Range<usize>) -> usize {
        for number in lines.clone() {
            let line = format!("{number:7}\n");
            if line.bytes().any(|byte| self.uart.write(0, &[byte]) == Outcome::Hold) {
                return number;
            }
            self.settle();
        }
        lines.end
    }

    /// Runs the event loop until there are no more events.
    fn settle(&mut self) {
        let is_quiet = (0..1000).any(|_| self.events.turn(Some(Duration::ZERO)).unwrap() == 0);
        assert!(is_quiet, "it goes round in circles");
    }

    /// Waits for the next event and handles it.
    fn wait(&mut self) {
        assert_ne!(self.events.turn(Some(DEADLINE)).unwrap(), 0, "nothing has happened");
    }

    /// Reads until `wanted` has been read.
    fn read_until(&mut self, client: &mut File, wanted: &str) -> String {
        let mut read = String::new();
        while !read.contains(wanted) {
            let mut bytes = [0; 4096];
            match client.read(&mut bytes) {
                Ok(len) => read.push_str(std::str::from_utf8(&bytes[..len]).unwrap()),
                Err(_) => self.wait(),
            }
        }
        read
    }
}

/// More lines than the pty and the line hold together.
const MANY: usize = 100_000;

#[test]
fn pty_that_is_full_holds_the_guest_until_its_client_closes_it() {
    let mut machine = Machine::new();
    let client = machine.connect();
    let held_at = machine.print_numbers(0..MANY);
    assert!(held_at < MANY);
    machine.settle();
    assert_eq!(machine.uart.write(0, b"x"), Outcome::Hold, "the client may still read");
    drop(client);
    machine.settle();
    assert_eq!(machine.print_numbers(0..MANY), MANY);
}

#[test]
fn pty_gives_its_next_client_what_the_last_left_and_the_newest() {
    let mut machine = Machine::new();
    drop(machine.connect());
    machine.settle();
    machine.print_numbers(0..MANY);
    let mut client = machine.connect();
    let read = machine.read_until(&mut client, &format!("{}\n", MANY - 1));
    assert_eq!(read.len(), KEPT_LEN);
    assert!(machine.print_numbers(0..MANY) < MANY, "it has a reader");
}

#[test]
fn pty_whose_client_pauses_loses_nothing() {
    let mut machine = Machine::new();
    let mut client = machine.connect();
    let held_at = machine.print_numbers(0..MANY);
    let read = machine.read_until(&mut client, &format!("{:7}\n", held_at));
    let expected: String = (0..=held_at).map(|number| format!("{number:7}\n")).collect();
    assert!(read == expected, "{} bytes of {}", read.len(), expected.len());
}

/// As `echo hello > /dev/pts/N` does it.
#[test]
fn pty_input_of_a_client_that_closes_it_at_once_reaches_the_guest_without_a_poll() {
    let mut machine = Machine::new();
    machine.listen();
    machine.settle();
    machine.console().stop_polling();
    machine.open_pty().write_all(b"hello").unwrap();
    machine.settle();
    assert_eq!(machine.read_by_guest(), b"hello");
    machine.open_pty().write_all(b"again").unwrap();
    machine.settle();
    assert_eq!(machine.read_by_guest(), b"again");
}

#[test]
fn pty_input_of_a_client_that_has_closed_it_waits_for_the_guest() {
    let mut machine = Machine::new();
    machine.connect().write_all(&[b'.'; 100]).unwrap();
    machine.settle();
    assert_eq!(machine.print_numbers(0..MANY), MANY, "nobody reads");
    machine.listen();
    machine.settle();
    let mut read = machine.read_by_guest();
    machine.settle();
    read.extend(machine.read_by_guest());
    assert_eq!(read, [b'.'; 100]);
}

#[test]
fn pty_takes_its_next_client_while_the_guest_reads_no_input() {
    let mut machine = Machine::new();
    machine.connect().write_all(b"one").unwrap();
    machine.settle();
    let mut client = machine.connect();
    client.write_all(b"two").unwrap();
    assert_eq!(machine.print_numbers(0..1), 1);
    assert_eq!(machine.read_until(&mut client, "0\n"), "      0\n");
    machine.listen();
    machine.settle();
    assert_eq!(machine.read_by_guest(), b"onetwo");
}

#[test]
fn pty_that_nobody_has_open_holds_no_guest_after_a_reset_either() {
    let mut machine = Machine::new();
    machine.restart();
    assert_eq!(machine.print_numbers(0..MANY), MANY);
    let mut client = machine.connect();
    assert_eq!(machine.read_until(&mut client, &format!("{}\n", MANY - 1)).len(), KEPT_LEN);
}

mod opened {
    use super::super::*;

    #[test]
    fn pty_is_its_users_alone() {
        let pty = Pty::open().unwrap();
        assert_eq!(std::fs::metadata(&pty.name).unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn pty_client_is_seen_when_it_comes_and_when_it_has_gone() {
        let pty = Pty::open().unwrap();
        assert!(!pty.has_client());
        let mut options = File::options();
        let options = options.read(true).write(true).custom_flags(libc::O_NOCTTY);
        let client = options.open(&pty.name).unwrap();
        assert!(pty.has_client());
        drop(client);
        assert!(!pty.has_client());
    }
}
