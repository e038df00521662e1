//! What the guest may have lost is reported however the run ends: with a device of the test's own, through the library.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use driver::{DEADLINE, guests, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use schemars::JsonSchema;
use serde::Deserialize;
use tempfile::TempDir;
use vmm_config::{Answer, Command, ConfigFile, MachineState, Reply, Request};
use vmm_machine::{Commander, Ending, Error, Kinds, Run, RunError, Start, Supervisor, Timeouts};
use vmm_virtio::{DeviceError, Fault, Kind, KindEntry, NoFields, Session, Setting, VirtioDevice};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        loss_of_a_device_that_hangs_at_a_restart_is_reported_when_the_user_quits,
        loss_of_a_device_that_hangs_is_none_if_it_keeps_nothing,
        loss_of_a_device_that_hangs_is_none_unless_its_kind_keeps_data,
        loss_is_reported_with_the_error_of_a_restart,
        loss_is_reported_with_the_error_of_a_run,
    ]
}

/// A device that has lost something, or hangs when it is stopped.
#[derive(Debug)]
struct Loser(Config);

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    hangs: bool,
    lasts: bool,
}

impl Kind for Loser {
    const NAME: &'static str = "loser";
    const ID: u32 = 4;
    type Config = Config;

    fn open(config: Config, _setting: &Setting<'_>) -> Result<Self, DeviceError> {
        Ok(Self(config))
    }
}

impl VirtioDevice for Loser {
    fn queue_sizes(&self) -> Vec<u16> {
        vec![1]
    }

    fn process(&mut self, _queue: usize, _session: &mut Session) -> Result<(), Fault> {
        Ok(())
    }

    fn loss(&self) -> Option<String> {
        Some("gone".to_owned())
    }

    fn may_lose(&self) -> bool {
        self.0.lasts
    }

    fn power_cycle(&mut self) {
        if self.0.hangs {
            hang();
        }
    }
}

/// Called when the machine has ended.
fn hang() {
    loop {
        thread::park();
    }
}

/// A device that hangs when it is stopped, of a kind that says nothing of losses.
#[derive(Debug)]
struct Hanger;

impl Kind for Hanger {
    const NAME: &'static str = "hanger";
    const ID: u32 = 4;
    type Config = NoFields;

    fn open(_config: NoFields, _setting: &Setting<'_>) -> Result<Self, DeviceError> {
        Ok(Self)
    }
}

impl VirtioDevice for Hanger {
    fn queue_sizes(&self) -> Vec<u16> {
        vec![1]
    }

    fn process(&mut self, _queue: usize, _session: &mut Session) -> Result<(), Fault> {
        Ok(())
    }

    fn power_cycle(&mut self) {
        hang();
    }
}

const KINDS: Kinds<'static> = Kinds {
    legacy: &[vmm_devices::KINDS],
    virtio: &[vmm_virtio_devices::KINDS, &[KindEntry::of::<Loser>(), KindEntry::of::<Hanger>()]],
};
const UNSTOPPED: &str = "device \"it\": it hasn't stopped in order, and what it had completed may be lost";

/// Runs a machine on a thread of its own.
fn start(config: String, dir: &Path) -> (Commander, JoinHandle<Result<Run, RunError>>) {
    let (commanders, commander) = channel();
    let path = dir.join("vm.json");
    let ended = thread::spawn(move || run(&config, &path, &commanders));
    (commander.recv_timeout(DEADLINE).expect("a supervisor"), ended)
}

fn run(config: &str, path: &Path, commanders: &Sender<Commander>) -> Result<Run, RunError> {
    let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default()).unwrap();
    commanders.send(supervisor.commander()).unwrap();
    let config = Arc::new(ConfigFile::parse(config, path).unwrap().merge(Default::default()).unwrap());
    supervisor.run(Start::new(config, KINDS).unwrap())
}

/// A machine whose guest prints "ready" to the file `serial`, with one such device.
fn echo(dir: &TempDir, device: &str) -> String {
    echo_with(dir, &format!(r#"{{"type": "loser", "id": "it", {device}}}"#))
}

fn echo_with(dir: &TempDir, device: &str) -> String {
    let kernel = dir.path().join("kernel");
    std::fs::copy(guests::path("echo"), &kernel).unwrap();
    format!(
        r#"{{"boot": {{"kernel": {kernel:?}}}, "memory": {{"size": "32M"}}, "on_reboot": "restart", "serial": {{"file": "serial"}},
            "devices": [{device}]}}"#
    )
}

fn wait_until_printed(dir: &TempDir) {
    let serial = dir.path().join("serial");
    wait_until("the guest prints", DEADLINE, || {
        std::fs::read_to_string(&serial).is_ok_and(|printed| printed == "ready\n")
    });
}

fn ask(commander: &Commander, command: Command) -> Answer {
    let (responses, answers) = channel();
    commander.send(Request { id: 1, command }, move |response| _ = responses.send(response));
    answers.recv_timeout(DEADLINE).expect("a response").answer
}

fn assert_done(commander: &Commander, command: Command) {
    assert_eq!(ask(commander, command), Answer::Result(Reply::Done));
}

fn is_stopping(commander: &Commander) -> bool {
    match ask(commander, Command::Status) {
        Answer::Result(Reply::Status(status)) => {
            status.state == MachineState::NotRunning
                && status.doing.as_deref() == Some("stopping virtio loser \"it\"")
        }
        other => panic!("{other:?}"),
    }
}

fn loss_of_a_device_that_hangs_at_a_restart_is_reported_when_the_user_quits() {
    let dir = TempDir::new().unwrap();
    let (commander, ended) = start(echo(&dir, r#""hangs": true, "lasts": true"#), dir.path());
    wait_until_printed(&dir);
    assert_done(&commander, Command::Reset);
    wait_until("the device is being stopped", DEADLINE, || is_stopping(&commander));
    assert_done(&commander, Command::Quit);
    assert_done(&commander, Command::Quit);
    let run = ended.join().unwrap().unwrap();
    assert!(matches!(run.ending, Ending::Quit), "{run:?}");
    assert_eq!(run.losses, [UNSTOPPED]);
    assert_eq!(run.exit_code(), 4);
}

fn loss_of_a_device_that_hangs_is_none_if_it_keeps_nothing() {
    let dir = TempDir::new().unwrap();
    let (commander, ended) = start(echo(&dir, r#""hangs": true, "lasts": false"#), dir.path());
    wait_until_printed(&dir);
    assert_done(&commander, Command::Quit);
    assert_done(&commander, Command::Quit);
    let run = ended.join().unwrap().unwrap();
    assert_eq!(run.losses, [""; 0]);
    assert_eq!(run.exit_code(), 0);
}

fn loss_of_a_device_that_hangs_is_none_unless_its_kind_keeps_data() {
    let dir = TempDir::new().unwrap();
    let (commander, ended) = start(echo_with(&dir, r#"{"type": "hanger"}"#), dir.path());
    wait_until_printed(&dir);
    assert_done(&commander, Command::Quit);
    assert_done(&commander, Command::Quit);
    let run = ended.join().unwrap().unwrap();
    assert_eq!(run.losses, [""; 0]);
    assert_eq!(run.exit_code(), 0);
}

/// The kernel's file has become empty.
fn loss_is_reported_with_the_error_of_a_restart() {
    let dir = TempDir::new().unwrap();
    let (commander, ended) = start(echo(&dir, r#""hangs": false, "lasts": true"#), dir.path());
    wait_until_printed(&dir);
    File::options().write(true).open(dir.path().join("kernel")).unwrap().set_len(0).unwrap();
    assert_done(&commander, Command::Reset);
    let failed = ended.join().unwrap().unwrap_err();
    assert!(matches!(failed.error, Error::Source(_)), "{failed}");
    assert_eq!(failed.losses, ["device \"it\": gone"]);
    assert!(failed.to_string().ends_with("; device \"it\": gone"), "{failed}");
}

/// The file of persistent memory has been truncated. Standard input of the guest is a socket.
fn loss_is_reported_with_the_error_of_a_run() {
    let dir = TempDir::new().unwrap();
    let memory = File::create(dir.path().join("memory")).unwrap();
    memory.set_len(2 << 20).unwrap();
    let config = format!(
        r#"{{"boot": {{"flat": {{"image": {:?}, "mode": "long"}}}}, "irqchip": true, "serial": {{"socket": "serial"}},
            "devices": [{{"type": "pmem", "path": "memory"}}, {{"type": "loser", "id": "it", "hangs": false, "lasts": true}}]}}"#,
        guests::path("pmem")
    );
    let (commander, ended) = start(config, dir.path());
    let is_running = || match ask(&commander, Command::Status) {
        Answer::Result(Reply::Status(status)) => status.state == MachineState::Running,
        other => panic!("{other:?}"),
    };
    wait_until("the guest runs", DEADLINE, is_running);
    memory.set_len(0).unwrap();
    UnixStream::connect(dir.path().join("serial")).unwrap().write_all(b"1").unwrap();
    let failed = ended.join().unwrap().unwrap_err();
    assert!(matches!(failed.error, Error::MissingPage { .. }), "{failed}");
    assert_eq!(failed.losses, ["device \"it\": gone"]);
}
