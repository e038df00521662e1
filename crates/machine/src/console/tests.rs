//! A console in an event loop: COM1 at a socket with a client.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use event_manager::SubscriberId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmm_bus::{BusDevice, IrqLine, Outcome};
use vmm_config::Serial;
use vmm_devices::Uart;

use super::pace::WORTH_WAKING;
use super::{Console, Lines, open_now};
use crate::event_loop::{EventLoop, Source};

/// A generous limit for events that come at once on an idle host.
const DEADLINE: Duration = Duration::from_secs(10);

/// COM1 at a socket with a client, before any output.
struct Machine {
    uart: Arc<Uart>,
    events: EventLoop,
    console: SubscriberId,
    client: UnixStream,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

fn serial(path: &Path) -> Serial {
    serde_json::from_value(serde_json::json!({"socket": path})).unwrap()
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
        let (messages, _) = mpsc::channel();
        let lines = Lines { serial: serial(&path), uart: uart.clone(), consoles: vec![] };
        let mut opened = open_now(lines, vec![], &messages).unwrap();
        let mut events = EventLoop::new().unwrap();
        let console = events.add(Source::Console(Box::new(opened.remove(0)))).unwrap();
        let client = connect(&path);
        events.turn(None).unwrap();
        Self { uart, events, console, client, path, _directory: directory }
    }

    /// The client disconnects, and another one connects.
    fn replace_client(&mut self) {
        self.client = connect(&self.path);
    }

    /// The guest enables the received data interrupt; until then it reads no input.
    fn listen(&self) {
        let _ = self.uart.write(1, &[1]);
    }

    /// Has the guest read `len` bytes.
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
        self.events.console(self.console).unwrap()
    }

    /// The machine is reset.
    fn restart(&mut self) {
        let Source::Console(console) = self.events.remove(self.console).unwrap() else {
            unreachable!("it is the only subscriber")
        };
        self.uart = Arc::new(Uart::new(IrqLine::new().unwrap()).unwrap());
        let (messages, _) = mpsc::channel();
        let lines = Lines { serial: serial(&self.path), uart: self.uart.clone(), consoles: vec![] };
        let mut opened = open_now(lines, vec![*console], &messages).unwrap();
        self.console = self.events.add(Source::Console(Box::new(opened.remove(0)))).unwrap();
        self.settle();
    }

    fn print(&self, text: &[u8]) {
        text.iter().for_each(|byte| _ = self.uart.write(0, &[*byte]));
    }

    /// One turn of the event loop without waiting. Returns whether there were events.
    fn turn(&mut self) -> bool {
        self.events.turn(Some(Duration::ZERO)).unwrap() > 0
    }

    /// Runs the event loop until there are no more events.
    fn settle(&mut self) {
        assert!((0..1000).any(|_| !self.turn()), "it goes round in circles");
    }

    /// Waits for the next event and handles it.
    fn wait(&mut self) {
        assert_ne!(self.events.turn(Some(DEADLINE)).unwrap(), 0, "nothing has happened");
    }

    fn read_by_client(&mut self) -> Vec<u8> {
        let mut bytes = [0; 1024];
        let len = self.client.read(&mut bytes).unwrap_or(0);
        bytes[..len].to_vec()
    }
}

/// The first byte is written at once; what follows gathers without a turn of the event loop per byte.
#[test]
fn console_lets_what_is_printed_after_a_byte_gather_until_the_pause_is_over() {
    let mut machine = Machine::new();
    machine.print(b"a");
    assert!(machine.turn());
    assert_eq!(machine.read_by_client(), b"a");
    // The pause doesn't end by itself.
    machine.console().pace().stop_time();
    machine.print(b"bc");
    assert!(!machine.turn());
    machine.console().hurry();
    machine.wait();
    assert_eq!(machine.read_by_client(), b"bc");
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
    assert_eq!(machine.read_by_client(), b"ab");
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
    assert_eq!(machine.read_by_client(), b"ab");
}

#[test]
fn console_of_a_guest_that_prints_a_lot_makes_no_pause() {
    let mut machine = Machine::new();
    machine.print(&[b'x'; WORTH_WAKING]);
    assert!(machine.turn());
    machine.print(b"y");
    assert!(machine.turn());
    assert_eq!(machine.read_by_client().len(), WORTH_WAKING + 1);
}

#[test]
fn console_whose_client_left_a_deaf_guest_takes_the_next_one_at_once() {
    let mut machine = Machine::new();
    machine.replace_client();
    machine.settle();
    machine.print(b"a");
    machine.settle();
    assert_eq!(machine.read_by_client(), b"a");
}

#[test]
fn console_delivers_a_departed_clients_input_once_the_guest_listens() {
    let mut machine = Machine::new();
    machine.client.write_all(b"reboot").unwrap();
    machine.replace_client();
    machine.client.write_all(b"next").unwrap();
    machine.settle();
    machine.print(b"a");
    machine.settle();
    assert_eq!(machine.read_by_client(), b"", "it isn't its turn");
    machine.listen();
    assert_eq!(machine.read_by_guest(10), b"rebootnext");
    machine.settle();
    assert_eq!(machine.read_by_client(), b"a");
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
    assert_eq!(machine.read_by_client(), b"a");
    machine.listen();
    assert_eq!(machine.read_by_guest(4), b"next");
}

#[test]
fn console_of_a_paused_guest_keeps_a_departed_clients_input() {
    let mut machine = Machine::new();
    machine.client.write_all(b"reboot").unwrap();
    machine.replace_client();
    machine.settle();
    machine.console().set_guest_runs(false);
    machine.console().departed().expire();
    machine.wait();
    machine.settle();
    machine.console().set_guest_runs(true);
    machine.client.write_all(b"next").unwrap();
    machine.listen();
    assert_eq!(machine.read_by_guest(10), b"rebootnext");
}

/// The line has room for 64 bytes at a time.
#[test]
fn console_whose_guest_reads_some_in_time_delivers_all_of_a_departed_clients_input() {
    let mut machine = Machine::new();
    machine.client.write_all(&[b'.'; 200]).unwrap();
    machine.replace_client();
    machine.client.write_all(b"next").unwrap();
    machine.settle();
    machine.listen();
    machine.console().departed().expire();
    let read = machine.read_by_guest(204);
    assert_eq!(read.iter().filter(|byte| **byte == b'.').count(), 200);
    assert!(read.ends_with(b"next"));
}

/// As after `nc -N` with its output closed.
/// The UART has taken all of it, so the client is forgotten; the guest has read a part, before and after another reset.
#[test]
fn console_keeps_a_departed_clients_input_over_resets() {
    let mut machine = Machine::new();
    machine.listen();
    machine.client.write_all(b"abcdefghij").unwrap();
    machine.client.shutdown(Shutdown::Both).unwrap();
    assert_eq!(machine.read_by_guest(3), b"abc");
    machine.settle();
    machine.restart();
    machine.listen();
    assert_eq!(machine.read_by_guest(4), b"defg");
    machine.restart();
    machine.replace_client();
    machine.client.write_all(b"!").unwrap();
    machine.listen();
    assert_eq!(machine.read_by_guest(4), b"hij!");
}

#[test]
fn console_whose_client_only_sends_holds_no_guest_after_a_reset_either() {
    let mut machine = Machine::new();
    machine.client.shutdown(Shutdown::Read).unwrap();
    machine.print(b"a");
    machine.settle();
    machine.restart();
    machine.print(&[b'x'; 100_000]);
    assert_eq!(machine.uart.write(0, b"x"), Outcome::Done);
    machine.client.write_all(b"next").unwrap();
    machine.listen();
    assert_eq!(machine.read_by_guest(4), b"next");
}

/// What can be written is written, and the rest is counted.
#[test]
fn console_that_ends_while_its_client_does_not_read_counts_what_is_lost() {
    let mut machine = Machine::new();
    let mut printed = 0;
    while machine.uart.write(0, b"x") != Outcome::Hold {
        printed += 1;
        machine.settle();
    }
    let lost = machine.console().write_rest();
    machine.client.shutdown(Shutdown::Write).unwrap();
    let read = std::iter::repeat_with(|| machine.read_by_client().len()).take_while(|len| *len > 0);
    assert_eq!(read.sum::<usize>() + lost, printed + 1);
    assert!(lost >= 64 << 10, "{lost}");
}

#[test]
fn console_that_ends_writes_what_its_guest_has_just_printed() {
    let mut machine = Machine::new();
    machine.print(b"bye");
    assert_eq!(machine.console().write_rest(), 0);
    assert_eq!(machine.read_by_client(), b"bye");
}

/// A thread writes to it.
#[test]
fn console_that_ends_waits_for_a_write_to_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let serial = serde_json::from_value(serde_json::json!({"file": file.path()})).unwrap();
    let uart = Arc::new(Uart::new(IrqLine::new().unwrap()).unwrap());
    let lines = Lines { serial, uart: uart.clone(), consoles: vec![] };
    let mut console = open_now(lines, vec![], &mpsc::channel().0).unwrap().remove(0);
    let _ = b"bye".map(|byte| uart.write(0, &[byte]));
    assert_eq!(console.write_rest(), 0);
    assert_eq!(std::fs::read(file.path()).unwrap(), b"bye");
}

/// Runs the test called `name` in a process of its own, whose limit of descriptors it may change. Returns whether this is that
/// process.
fn is_own_process(name: &str) -> bool {
    const CHILD: &str = "VMM_MACHINE_TESTS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let name = format!("console::tests::{name}");
    let program = std::env::current_exe().unwrap();
    let output =
        Command::new(program).args(["--exact", &name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// Lets the process have only descriptors with smaller numbers. Returns the limit before.
fn limit_descriptors(most: u64) -> Rlimit {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit }).unwrap();
    limit
}

/// The lowest descriptor that isn't used.
fn next_descriptor() -> u64 {
    std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64
}

#[test]
fn console_whose_client_lacks_a_descriptor_rests_and_connects_it_when_there_is_one() {
    if !is_own_process("console_whose_client_lacks_a_descriptor_rests_and_connects_it_when_there_is_one") {
        return;
    }
    let mut machine = Machine::new();
    machine.replace_client();
    // The first client's descriptors stay in use until the next turn, so there is none from here on.
    let limit = limit_descriptors(3);
    machine.settle();
    machine.settle();
    setrlimit(Resource::Nofile, limit).unwrap();
    machine.print(b"a");
    machine.settle();
    assert_eq!(machine.read_by_client(), b"", "it hasn't been tried again");
    machine.wait();
    machine.settle();
    assert_eq!(machine.read_by_client(), b"a");
    // The pause after the first byte ends. The next client is noticed at once again.
    machine.wait();
    machine.replace_client();
    machine.settle();
    machine.print(b"b");
    machine.settle();
    assert_eq!(machine.read_by_client(), b"b");
}

/// The monitor needs two descriptors for a client.
#[test]
fn console_whose_client_lacks_the_second_descriptor_keeps_it_and_reads_it_later() {
    if !is_own_process("console_whose_client_lacks_the_second_descriptor_keeps_it_and_reads_it_later") {
        return;
    }
    let mut machine = Machine::new();
    machine.listen();
    machine.client = UnixStream::pair().unwrap().0;
    machine.settle();
    machine.client = connect(&machine.path);
    machine.client.write_all(b"typed").unwrap();
    let limit = limit_descriptors(next_descriptor() + 1);
    machine.settle();
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(machine.read_by_guest(5), b"typed");
}
