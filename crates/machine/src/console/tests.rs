//! A console by its event loop: COM1 at a socket, with a client.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};

use event_manager::{EventManager, SubscriberId, SubscriberOps};
use vmm_bus::{BusDevice, IrqLine};
use vmm_config::Serial;
use vmm_devices::Uart;

use super::pace::WORTH_WAKING;
use super::{Console, open_all};
use crate::event_loop::Source;

/// For what happens at once on a machine that isn't busy.
const DEADLINE_MS: i32 = 10_000;

/// COM1 at a socket with a client, and nothing printed yet.
struct Machine {
    uart: Arc<Uart>,
    events: EventManager<Source>,
    console: SubscriberId,
    client: UnixStream,
    _directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.sock");
        let uart = Arc::new(Uart::new(IrqLine::new().unwrap()).unwrap());
        let serial: Serial = serde_json::from_value(serde_json::json!({"socket": path})).unwrap();
        let (messages, _) = mpsc::channel();
        let mut opened = open_all(&serial, Arc::clone(&uart), vec![], vec![], &messages).unwrap();
        let mut events = EventManager::new().unwrap();
        let console = events.add_subscriber(Source::Console(Box::new(opened.remove(0))));
        let client = UnixStream::connect(&path).unwrap();
        client.set_nonblocking(true).unwrap();
        events.run().unwrap();
        Self { uart, events, console, client, _directory: directory }
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
