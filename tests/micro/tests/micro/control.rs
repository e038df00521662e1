//! The control socket of the program, and `vmm-bin ctl`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use driver::{DEADLINE, Launch, Monitor, Stdin, guests, monitor_program, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use serde_json::{Value, from_slice, json};
use tempfile::TempDir;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        control_has_status_pause_resume_and_quit,
        control_changes_a_device_by_its_type,
        control_events_follow_the_machine_to_its_end,
        control_events_begin_with_the_start,
        control_starts_a_machine_that_waits_without_a_terminal,
        control_that_nobody_listens_at_is_code_4,
        control_harms_no_machine,
    ]
}

/// `ctl`: the machine refused.
const REFUSED: i32 = 1;
const HOST_CANT: i32 = 4;

/// A machine that echoes its input, and its control socket.
struct Controlled {
    monitor: Monitor,
    dir: TempDir,
}

impl Controlled {
    fn launch(args: &[&str]) -> (Launch, TempDir) {
        let dir = TempDir::new().unwrap();
        let config = json!({
            "boot": {"kernel": guests::path("echo")}, "memory": {"size": "32M"}, "control": "vm.sock", "on_reboot": "restart",
            "devices": [{"type": "rng", "id": "dice"}, {"type": "balloon"}]
        });
        let path = dir.path().join("vm.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let launch = Monitor::command(["--config", path.to_str().unwrap()]).args(args).stdin(Stdin::Pipe);
        (launch, dir)
    }

    fn start() -> Self {
        let (launch, dir) = Self::launch(&[]);
        let mut monitor = launch.start();
        monitor.expect("ready\n", DEADLINE);
        Self { monitor, dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("vm.sock")
    }

    fn ctl(&self, words: &[&str]) -> Output {
        ctl(&self.socket(), words)
    }

    /// What a command prints.
    #[track_caller]
    fn result(&self, words: &[&str]) -> Value {
        let output = self.ctl(words);
        assert!(output.status.success(), "{output:?}");
        if output.stdout.is_empty() { Value::Null } else { from_slice(&output.stdout).unwrap() }
    }

    fn state(&self) -> Value {
        self.result(&["status"])["state"].clone()
    }

    fn quit(mut self) {
        assert_eq!(self.result(&["quit"]), Value::Null);
        self.monitor.expect_code(0, DEADLINE);
        assert!(!self.socket().exists());
    }
}

fn ctl(socket: &std::path::Path, words: &[&str]) -> Output {
    Command::new(monitor_program()).arg("ctl").arg(socket).args(words).output().unwrap()
}

fn control_has_status_pause_resume_and_quit() {
    let mut machine = Controlled::start();
    let status = machine.result(&["status"]);
    assert_eq!(status["state"], "running");
    assert_eq!(
        status["machine"]["devices"],
        json!([{"id": "dice", "type": "rng"}, {"id": "balloon0", "type": "balloon"}])
    );
    assert_eq!(machine.result(&["pause"]), Value::Null);
    assert_eq!(machine.state(), "paused");
    machine.monitor.send(b"x");
    machine.monitor.expect_quiet(Duration::from_millis(200));
    assert_eq!(machine.result(&["resume"]), Value::Null);
    machine.monitor.expect("x", DEADLINE);
    let refused = machine.ctl(&["power-button"]);
    assert_eq!(refused.status.code(), Some(REFUSED));
    assert_eq!(
        String::from_utf8_lossy(&refused.stderr),
        "error: the guest doesn't listen to the power button\n"
    );
    machine.quit();
}

fn control_changes_a_device_by_its_type() {
    let machine = Controlled::start();
    assert_eq!(machine.result(&["balloon", "size=4M"]), Value::Null);
    assert_eq!(machine.result(&["balloon"])["target_bytes"], 4 << 20);
    assert_eq!(machine.result(&["balloon", "balloon0"])["target_bytes"], 4 << 20);
    let refused = |words: &[&str]| String::from_utf8(machine.ctl(words).stderr).unwrap();
    assert_eq!(refused(&["net", "link=down"]), "error: the machine has no device of type \"net\"\n");
    assert!(
        refused(&["balloon", "dise"])
            .contains("no virtio device has the id \"dise\": did you mean \"dice\"?")
    );
    assert!(
        refused(&["balloon", "size=much"]).starts_with("error: size: "),
        "{}",
        refused(&["balloon", "size=much"])
    );
    assert_eq!(
        refused(&["fan"]),
        "error: ctl has no command \"fan\", only status, pause, resume, power-button, reset, quit, metrics, events, snapshot, \
         balloon, block, net, console\n"
    );
    machine.quit();
}

fn control_events_follow_the_machine_to_its_end() {
    let mut machine = Controlled::start();
    let mut events = Command::new(monitor_program());
    let mut events = events
        .arg("ctl")
        .arg(machine.socket())
        .arg("events")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(events.stdout.take().unwrap()).lines().map(Result::unwrap);
    // `ctl` connects at some time: until it is told something.
    let (told, first) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let _ = told.send(());
        lines.inspect(|_| _ = told.send(())).collect::<Vec<_>>()
    });
    first.recv_timeout(DEADLINE).unwrap();
    wait_until("an event is sent", DEADLINE, || {
        machine.result(&["pause"]);
        machine.result(&["resume"]);
        first.try_recv().is_ok()
    });
    machine.result(&["reset"]);
    machine.monitor.expect("ready\n", DEADLINE);
    machine.result(&["quit"]);
    machine.monitor.expect_code(0, DEADLINE);
    let told = reader.join().unwrap();
    let (changes, last) = told.split_at(told.len() - 3);
    // It may have missed the first.
    assert!(changes.ends_with(&[r#""resumed""#.to_owned()]), "{told:?}");
    assert!(changes.windows(2).all(|pair| pair[0] != pair[1]), "{told:?}");
    let known = [r#""paused""#, r#""resumed""#];
    assert!(changes.iter().all(|change| known.contains(&change.as_str())), "{told:?}");
    assert_eq!(
        last,
        [r#""reset""#, r#""started""#, r#"{"ended":{"exit_code":0,"reason":"quit by the user"}}"#]
    );
    assert!(events.wait().unwrap().success());
}

fn control_events_begin_with_the_start() {
    let dir = TempDir::new().unwrap();
    // hlt, without an interrupt to wait for
    std::fs::write(dir.path().join("halt.bin"), b"\xf4").unwrap();
    let config = json!({"boot": {"flat": {"image": "halt.bin"}}, "control": "vm.sock"});
    let path = dir.path().join("vm.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let args = ["--config", path.to_str().unwrap(), "--paused"];
    let mut monitor = Monitor::command(args).stdin(Stdin::Null).start();
    let socket = dir.path().join("vm.sock");
    wait_until("the socket is there", DEADLINE, || socket.exists());
    let stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
    { &stream }.write_all(b"{\"id\": 1, \"command\": \"events\"}\n").unwrap();
    assert_eq!(lines.next().unwrap(), r#"{"id":1,"result":"done"}"#);
    let is_built = || ctl(&socket, &["status"]).stdout.windows(12).any(|text| text == b"\"configured\"");
    wait_until("the machine is built", DEADLINE, is_built);
    // The machine may have ended before this is answered.
    ctl(&socket, &["resume"]);
    let told: Vec<_> = lines.by_ref().collect();
    assert_eq!(told[..1], [r#"{"event":"started"}"#]);
    assert!(told[1].starts_with(r#"{"event":{"ended":{"exit_code":0,"reason":"#), "{told:?}");
    assert_eq!(told.len(), 2);
    monitor.expect_code(0, DEADLINE);
}

fn control_starts_a_machine_that_waits_without_a_terminal() {
    let (launch, dir) = Controlled::launch(&["--paused"]);
    let socket = dir.path().join("vm.sock");
    let monitor = launch.start();
    wait_until("the socket is there", DEADLINE, || socket.exists());
    let mut machine = Controlled { monitor, dir };
    wait_until("the machine is built", DEADLINE, || machine.state() == "configured");
    assert_eq!(machine.result(&["resume"]), Value::Null);
    machine.monitor.expect("ready\n", DEADLINE);
    machine.quit();
}

fn control_that_nobody_listens_at_is_code_4() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("none.sock");
    let output = ctl(&socket, &["status"]);
    assert_eq!(output.status.code(), Some(HOST_CANT));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, format!("error: {}: No such file or directory (os error 2)\n", socket.display()));
}

/// Garbage, half a request, a client that never reads, and one that leaves in the middle.
fn control_harms_no_machine() {
    let mut machine = Controlled::start();
    let connect = || UnixStream::connect(machine.socket()).unwrap();
    let (flood, half, gone, mut garbage) = (connect(), connect(), connect(), connect());
    flood.set_nonblocking(true).unwrap();
    let requests = "{\"id\": 1, \"command\": \"metrics\"}\n".repeat(1000);
    while { &flood }.write(requests.as_bytes()).is_ok() {}
    { &half }.write_all(b"{\"id\": 1, \"command\": \"qui").unwrap();
    { &gone }
        .write_all(b"{\"id\": 1, \"command\": \"pause\"}\n{\"id\": 2, \"command\": \"resume\"}\n")
        .unwrap();
    drop(gone);
    let _ = garbage.write_all(&[0xff; 100_000]);
    let mut said = Vec::new();
    let _ = garbage.read_to_end(&mut said);
    assert!(String::from_utf8_lossy(&said).contains("invalid_request"));
    wait_until("it runs again", DEADLINE, || machine.state() == "running");
    machine.monitor.send(b"x");
    machine.monitor.expect("x", DEADLINE);
    machine.quit();
}
