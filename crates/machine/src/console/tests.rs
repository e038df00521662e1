//! A console by its event loop: COM1 at a socket, with a client.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use event_manager::{EventManager, SubscriberId, SubscriberOps};
use vmm_bus::{BusDevice, IrqLine};
use vmm_config::Serial;
use vmm_devices::Uart;

use super::pace::WORTH_WAKING;
use super::{Console, Lines, open_all};
use crate::event_loop::Source;

/// For what happens at once on a machine that isn't busy.
const DEADLINE_MS: i32 = 10_000;

/// COM1 at a socket with a client, and nothing printed yet.
struct Machine {
    uart: Arc<Uart>,
    events: EventManager<Source>,
    console: SubscriberId,
    client: UnixStream,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

fn connect(path: &Path) -> UnixStream {
    let client = UnixStream::connect(path).unwrap();
    client.set_nonblocking(true).unwrap();
    client
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.sock");
        let uart = Arc::new(Uart::new(IrqLine::new().unwrap()).unwrap());
        let serial: Serial = serde_json::from_value(serde_json::json!({"socket": path})).unwrap();
        let (messages, _) = mpsc::channel();
        let mut opened =
            open_all(Lines { serial, uart: uart.clone(), consoles: vec![] }, vec![], &messages).unwrap();
        let mut events = EventManager::new().unwrap();
        let console = events.add_subscriber(Source::Console(Box::new(opened.remove(0))));
        let client = connect(&path);
        events.run().unwrap();
        Self { uart, events, console, client, path, _directory: directory }
    }

    /// The client leaves, and another comes.
    fn replace_client(&mut self) {
        self.client = connect(&self.path);
    }

    /// The guest enables the interrupt for received data, and until then it takes none.
    fn listen(&self) {
        let _ = self.uart.write(1, &[1]);
    }

    /// What the guest reads until it has got `len` bytes.
    fn read_by_guest(&mut self, len: usize) -> Vec<u8> {
        let mut read = vec![];
        while read.len() < len {
            let mut byte = [0];
            self.uart.read(5, &mut byte);
            if byte[0] & 1 == 0 {
                self.wait();
                continue;
            }
            self.uart.read(0, &mut byte);
            read.push(byte[0]);
        }
        read
    }

    fn console(&mut self) -> &mut Console {
        match self.events.subscriber_mut(self.console).unwrap() {
            Source::Console(console) => console,
            _ => unreachable!("it is the only subscriber"),
        }
    }

    fn print(&self, text: &[u8]) {
        text.iter().for_each(|byte| _ = self.uart.write(0, &[*byte]));
    }

    /// Lets the event loop do what is to be done now; whether that was anything.
    fn turn(&mut self) -> bool {
        self.events.run_with_timeout(0).unwrap() > 0
    }

    /// Lets it do whatever is to be done now.
    fn settle(&mut self) {
        assert!((0..1000).any(|_| !self.turn()), "it goes round in circles");
    }

    /// Lets it wait for something to do.
    fn wait(&mut self) {
        assert_ne!(self.events.run_with_timeout(DEADLINE_MS).unwrap(), 0, "nothing has happened");
    }

    fn heard(&mut self) -> Vec<u8> {
        let mut bytes = [0; 1024];
        let len = self.client.read(&mut bytes).unwrap_or(0);
        bytes[..len].to_vec()
    }
}

/// The first byte comes at once, and what follows gathers without a turn of the event loop for each.
#[test]
fn console_lets_what_is_printed_after_a_byte_gather_until_the_pause_is_over() {
    let mut machine = Machine::new();
    machine.print(b"a");
    assert!(machine.turn());
    assert_eq!(machine.heard(), b"a");
    // Time stands still.
    machine.console().pace().stop_time();
    machine.print(b"bc");
    assert!(!machine.turn());
    machine.console().hurry();
    machine.wait();
    assert_eq!(machine.heard(), b"bc");
}

#[test]
fn console_whose_guest_has_ended_waits_for_no_pause() {
    let mut machine = Machine::new();
    machine.print(b"a");
    assert!(machine.turn());
    machine.console().pace().stop_time();
    machine.print(b"b");
    machine.console().hurry();
    machine.wait();
    assert_eq!(machine.heard(), b"ab");
    assert!(machine.console().is_drained());
}

#[test]
fn console_listens_again_once_a_pause_has_brought_nothing() {
    let mut machine = Machine::new();
    machine.print(b"a");
    assert!(machine.turn());
    machine.wait();
    assert!(!machine.console().pace().is_pausing());
    machine.print(b"b");
    assert!(machine.turn());
    assert_eq!(machine.heard(), b"ab");
}

#[test]
fn console_of_a_guest_that_prints_a_lot_makes_no_pause() {
    let mut machine = Machine::new();
    machine.print(&[b'x'; WORTH_WAKING]);
    assert!(machine.turn());
    machine.print(b"y");
    assert!(machine.turn());
    assert_eq!(machine.heard().len(), WORTH_WAKING + 1);
}

#[test]
fn console_whose_client_left_a_deaf_guest_takes_the_next_one_at_once() {
    let mut machine = Machine::new();
    machine.replace_client();
    machine.settle();
    machine.print(b"a");
    machine.settle();
    assert_eq!(machine.heard(), b"a");
}

#[test]
fn console_hears_out_who_typed_and_left_before_the_guest_listens() {
    let mut machine = Machine::new();
    machine.client.write_all(b"reboot").unwrap();
    machine.replace_client();
    machine.client.write_all(b"next").unwrap();
    machine.settle();
    machine.print(b"a");
    machine.settle();
    assert_eq!(machine.heard(), b"", "it isn't its turn");
    machine.listen();
    assert_eq!(machine.read_by_guest(10), b"rebootnext");
    machine.settle();
    assert_eq!(machine.heard(), b"a");
}

#[test]
fn console_of_a_guest_that_takes_nothing_for_long_takes_the_next_client() {
    let mut machine = Machine::new();
    machine.client.write_all(b"lost").unwrap();
    machine.replace_client();
    machine.settle();
    machine.console().departed().expire();
    machine.wait();
    machine.settle();
    machine.client.write_all(b"next").unwrap();
    machine.print(b"a");
    machine.settle();
    assert_eq!(machine.heard(), b"a");
    machine.listen();
    assert_eq!(machine.read_by_guest(4), b"next");
}

/// The line has room for 64 bytes at a time.
#[test]
fn console_whose_guest_takes_some_in_its_time_hears_out_who_left() {
    let mut machine = Machine::new();
    machine.client.write_all(&[b'.'; 200]).unwrap();
    machine.replace_client();
    machine.client.write_all(b"next").unwrap();
    machine.settle();
    machine.listen();
    machine.console().departed().expire();
    let heard = machine.read_by_guest(204);
    assert_eq!(heard.iter().filter(|byte| **byte == b'.').count(), 200);
    assert!(heard.ends_with(b"next"));
}
