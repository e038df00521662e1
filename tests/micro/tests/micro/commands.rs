//! Commands that a program sends to a machine through the library.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use driver::{DEADLINE, guests, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;
use vmm_config::{
    Answer, Command, ConfigFile, DeviceUpdate, ErrorCode, MachineState, Reply, Request, Response, Status,
};
use vmm_machine::{Commander, Ending, Kinds, Start, Supervisor, Timeouts};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        command_pause_stops_the_machine_until_resume,
        command_resume_starts_a_machine_that_is_configured,
        command_resume_takes_a_pause_back_that_is_under_way_or_finds_it_done,
        command_power_button_that_the_guest_ignores_is_an_error,
        command_metrics_are_those_of_the_devices,
        command_for_a_device_changes_it_and_reports_it_also_after_a_reset,
        command_for_a_device_that_is_refused_says_why,
        command_reset_starts_the_machine_anew,
        command_reset_of_a_machine_that_ends_then_ends_it,
        command_quit_right_after_a_reset_is_not_lost,
        command_reset_of_a_machine_that_is_configured_leaves_it_so,
        command_update_right_before_a_reset_is_answered_as_it_was_done,
    ]
}

/// A supervisor on its own thread, with a machine that echoes its input and prints to a file.
struct Bench {
    dir: TempDir,
    commander: Commander,
    responses: (Sender<Response>, Receiver<Response>),
    ended: JoinHandle<Ending>,
}

impl Bench {
    fn start(on_reboot: &str) -> Self {
        let bench = Self::configure(on_reboot, false);
        bench.wait_until_printed("ready\n");
        bench
    }

    fn configure(on_reboot: &str, paused: bool) -> Self {
        let dir = TempDir::new().unwrap();
        let text = format!(
            r#"{{"boot": {{"kernel": {:?}}}, "memory": {{"size": "32M"}}, "on_reboot": "{on_reboot}",
                "serial": {{"file": "serial"}}, "devices": [{{"type": "rng", "id": "dice"}}, {{"type": "balloon", "id": "balloon"}}]}}"#,
            guests::path("echo")
        );
        let (commanders, commander) = channel();
        let path = dir.path().join("vm.json");
        let ended = thread::spawn(move || run(&text, &path, paused, &commanders));
        let commander = commander.recv_timeout(DEADLINE).expect("a supervisor");
        Self { dir, commander, responses: channel(), ended }
    }

    fn wait_until_printed(&self, text: &str) {
        let serial = self.dir.path().join("serial");
        wait_until("the guest prints", DEADLINE, || {
            std::fs::read_to_string(&serial).is_ok_and(|printed| printed == text)
        });
    }

    #[track_caller]
    fn ask(&self, id: u64, command: Command) {
        let responses = self.responses.0.clone();
        self.commander.send(Request { id, command }, move |response| _ = responses.send(response));
    }

    #[track_caller]
    fn answer(&self) -> (u64, Answer) {
        let Response { id, answer } = self.responses.1.recv_timeout(DEADLINE).expect("a response");
        (id, answer)
    }

    #[track_caller]
    fn assert_done(&self, id: u64, command: Command) {
        self.ask(id, command);
        assert_eq!(self.answer(), (id, Answer::Result(Reply::Done)));
    }

    fn status(&self) -> Status {
        self.ask(0, Command::Status);
        match self.answer() {
            (0, Answer::Result(Reply::Status(status))) => status,
            other => panic!("{other:?}"),
        }
    }

    fn quit(self) {
        self.assert_done(99, Command::Quit);
        assert!(matches!(self.ended.join(), Ok(Ending::Quit)));
    }
}

fn run(config: &str, path: &Path, paused: bool, commanders: &Sender<Commander>) -> Ending {
    let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default()).unwrap();
    commanders.send(supervisor.commander()).unwrap();
    let config = Arc::new(ConfigFile::parse(config, path).unwrap().merge(Default::default()).unwrap());
    let kinds = Kinds { virtio: &[vmm_virtio_devices::KINDS], ..Kinds::default() };
    let start = Start { paused, ..Start::new(config, kinds).unwrap() };
    supervisor.run(start).unwrap().ending
}

fn command_pause_stops_the_machine_until_resume() {
    let bench = Bench::start("exit");
    let running = bench.status();
    assert_eq!(running.state, MachineState::Running);
    assert_eq!(
        running.machine.as_ref().map(|machine| (machine.vcpus, machine.memory_bytes)),
        Some((1, 32 << 20))
    );
    bench.assert_done(1, Command::Pause);
    assert_eq!(bench.status().state, MachineState::Paused);
    bench.assert_done(2, Command::Pause);
    bench.assert_done(3, Command::Resume);
    assert_eq!(bench.status().state, MachineState::Running);
    bench.assert_done(4, Command::Resume);
    bench.quit();
}

fn command_resume_starts_a_machine_that_is_configured() {
    let bench = Bench::configure("exit", true);
    wait_until("the machine is built", DEADLINE, || bench.status().state == MachineState::Configured);
    bench.assert_done(1, Command::Pause);
    assert_eq!(bench.status().state, MachineState::Configured);
    bench.assert_done(2, update("balloon", json!({"size": "8M"})));
    bench.ask(3, Command::Metrics);
    assert!(matches!(bench.answer(), (3, Answer::Result(Reply::Metrics(_)))));
    bench.wait_until_printed("");
    bench.assert_done(4, Command::Resume);
    assert_eq!(bench.status().state, MachineState::Running);
    bench.wait_until_printed("ready\n");
    bench.quit();
}

fn command_resume_takes_a_pause_back_that_is_under_way_or_finds_it_done() {
    let bench = Bench::start("exit");
    bench.ask(1, Command::Pause);
    bench.ask(2, Command::Resume);
    let mut answers = [bench.answer(), bench.answer()];
    answers.sort_by_key(|(id, _)| *id);
    assert_eq!(answers[1], (2, Answer::Result(Reply::Done)));
    assert_eq!(answers[0].0, 1);
    assert_eq!(bench.status().state, MachineState::Running);
    bench.quit();
}

fn command_power_button_that_the_guest_ignores_is_an_error() {
    let bench = Bench::start("exit");
    bench.ask(7, Command::PowerButton);
    let (id, answer) = bench.answer();
    let Answer::Error(error) = answer else { panic!("{answer:?}") };
    assert_eq!((id, error.code), (7, ErrorCode::NotListening));
    assert_eq!(error.to_string(), "the guest doesn't listen to the power button");
    bench.quit();
}

fn command_metrics_are_those_of_the_devices() {
    let bench = Bench::start("exit");
    bench.ask(1, Command::Metrics);
    let (_, answer) = bench.answer();
    let Answer::Result(Reply::Metrics(metrics)) = answer else { panic!("{answer:?}") };
    assert_eq!(metrics["devices"]["dice"]["requests"], 0);
    bench.quit();
}

fn update(id: &str, fields: Value) -> Command {
    let fields = fields.as_object().unwrap().clone();
    Command::UpdateDevice(DeviceUpdate { id: id.to_owned(), fields })
}

fn command_for_a_device_changes_it_and_reports_it_also_after_a_reset() {
    let bench = Bench::start("restart");
    let target = |bench: &Bench| {
        bench.ask(8, Command::DeviceStatus { id: "balloon".to_owned() });
        match bench.answer() {
            (8, Answer::Result(Reply::Device(report))) => report["target_bytes"].as_u64(),
            other => panic!("{other:?}"),
        }
    };
    let devices = bench.status().machine.unwrap().devices;
    let names: Vec<_> = devices.iter().map(|device| (device.id.as_str(), device.kind.as_str())).collect();
    assert_eq!(names, [("dice", "rng"), ("balloon", "balloon")]);
    assert_eq!(target(&bench), Some(0));
    bench.assert_done(1, update("balloon", json!({"size": "8M"})));
    assert_eq!(target(&bench), Some(8 << 20));
    bench.assert_done(2, Command::Pause);
    bench.assert_done(3, update("balloon", json!({"size": "4M"})));
    bench.assert_done(4, Command::Resume);
    bench.assert_done(5, Command::Reset);
    bench.wait_until_printed("ready\nready\n");
    assert_eq!(target(&bench), Some(4 << 20));
    bench.quit();
}

fn command_for_a_device_that_is_refused_says_why() {
    let bench = Bench::start("exit");
    let refusal = |command| {
        bench.ask(1, command);
        match bench.answer() {
            (1, Answer::Error(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let unknown = refusal(update("ballon", json!({})));
    assert_eq!((unknown.code, unknown.field.as_deref()), (ErrorCode::UnknownDevice, Some("id")));
    assert_eq!(unknown.message, "no virtio device has the id \"ballon\": did you mean \"balloon\"?");
    let wrong = refusal(update("balloon", json!({"size": "1"})));
    assert_eq!((wrong.code, wrong.field.as_deref()), (ErrorCode::InvalidField, Some("size")));
    assert!(wrong.message.starts_with("size: 1 isn't a multiple of the page size"), "{wrong}");
    let fixed = refusal(update("dice", json!({"size": "1"})));
    assert_eq!((fixed.code, fixed.field), (ErrorCode::InvalidField, None));
    assert_eq!(fixed.message, "this device has no field that can be changed at run time");
    bench.quit();
}

fn command_reset_starts_the_machine_anew() {
    let bench = Bench::start("restart");
    bench.assert_done(1, Command::Reset);
    bench.wait_until_printed("ready\nready\n");
    assert_eq!(bench.status().state, MachineState::Running);
    bench.quit();
}

fn command_reset_of_a_machine_that_ends_then_ends_it() {
    let bench = Bench::start("exit");
    bench.assert_done(1, Command::Reset);
    assert!(matches!(bench.ended.join(), Ok(Ending::Reset)));
}

/// The command arrives while the machine is being stopped for its restart.
fn command_quit_right_after_a_reset_is_not_lost() {
    let bench = Bench::start("restart");
    bench.ask(1, Command::Reset);
    bench.ask(2, Command::Quit);
    assert_eq!([bench.answer(), bench.answer()], [1, 2].map(|id| (id, Answer::Result(Reply::Done))));
    wait_until("the supervisor ends", DEADLINE, || bench.ended.is_finished());
    assert!(matches!(bench.ended.join(), Ok(Ending::Quit)));
}

fn command_reset_of_a_machine_that_is_configured_leaves_it_so() {
    let bench = Bench::configure("restart", true);
    wait_until("the machine is built", DEADLINE, || bench.status().state == MachineState::Configured);
    bench.assert_done(1, Command::Reset);
    wait_until("the next one is built", DEADLINE, || bench.status().state != MachineState::NotRunning);
    assert_eq!(bench.status().state, MachineState::Configured);
    bench.wait_until_printed("");
    bench.assert_done(2, Command::Resume);
    bench.wait_until_printed("ready\n");
    bench.quit();
}

/// Each time, either the command is done, or the client learns that the device may have carried it out.
fn command_update_right_before_a_reset_is_answered_as_it_was_done() {
    let bench = Bench::start("restart");
    for round in 1..20 {
        bench.ask(1, update("balloon", json!({"size": format!("{round}M")})));
        bench.ask(2, Command::Reset);
        let mut answers = [bench.answer(), bench.answer()];
        answers.sort_by_key(|(id, _)| *id);
        assert_eq!(answers[1], (2, Answer::Result(Reply::Done)));
        match &answers[0].1 {
            Answer::Result(reply) => assert_eq!(*reply, Reply::Done),
            Answer::Error(error) => assert_eq!(
                (error.code, error.message.as_str()),
                (ErrorCode::Ended, "the machine has ended; the device may have carried out the command")
            ),
        }
        wait_until("the machine is there again", DEADLINE, || bench.status().state == MachineState::Running);
    }
    bench.quit();
}
