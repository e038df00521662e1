//! Snapshots of the program: taken by `ctl snapshot`, continued by `restore`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use driver::{DEADLINE, Monitor, Stdin, guests, monitor_program, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use serde_json::{Value, from_slice, json};
use tempfile::TempDir;
use vmm_kvm::VcpuState;
use vmm_snapshot::{FieldReader, FieldWriter, State};

use crate::common::{BAD_CONFIG, HOST_CANT, USAGE};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        snapshot_of_a_running_machine_is_continued_and_the_machine_goes_on,
        snapshot_in_two_files_is_restored,
        snapshot_of_a_machine_whose_memory_file_was_shortened_is_refused,
        snapshot_of_a_paused_machine_leaves_it_paused,
        snapshot_of_a_machine_that_waits_for_its_start_begins_there,
        snapshot_of_a_flat_guest_without_interrupts_begins_where_it_was,
        snapshot_with_stop_ends_the_machine,
        snapshot_of_a_restored_machine_names_its_parent,
        snapshot_with_several_processors_is_continued,
        snapshot_of_a_flat_guest_with_interrupts_is_continued,
        snapshot_of_a_device_that_cant_be_saved_is_refused_by_its_name,
        snapshot_of_shared_memory_is_copied_and_not_mapped,
        snapshot_that_is_damaged_starts_nothing,
        snapshot_that_kvm_refuses_is_the_snapshots_fault,
        snapshot_of_other_devices_or_memory_is_refused_by_field,
        snapshot_into_something_that_exists_leaves_the_machine_running,
    ]
}

/// A machine with a control socket, and the directory of its files.
pub(crate) struct Machine {
    pub(crate) monitor: Monitor,
    dir: TempDir,
}

impl Machine {
    /// A guest that echoes its input.
    fn echoing(fields: Value, args: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let mut config = json!({
            "boot": {"kernel": guests::path("echo")}, "memory": {"size": "32M"}, "control": "vm.sock",
            "devices": [{"type": "rng", "id": "dice"}, {"type": "balloon"}]
        });
        for (name, value) in fields.as_object().unwrap() {
            config[name] = value.clone();
        }
        let path = dir.path().join("vm.json");
        fs::write(&path, config.to_string()).unwrap();
        let monitor =
            Monitor::command(["--config", path.to_str().unwrap()]).args(args).stdin(Stdin::Pipe).start();
        Self { monitor, dir }
    }

    pub(crate) fn ready(fields: Value) -> Self {
        let mut machine = Self::echoing(fields, &[]);
        machine.monitor.expect("ready\n", DEADLINE);
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn ctl(&self, words: &[&str]) -> Output {
        let socket = self.path("vm.sock");
        Command::new(monitor_program()).arg("ctl").arg(socket).args(words).output().unwrap()
    }

    /// Takes a snapshot called `name`, and returns its path.
    #[track_caller]
    pub(crate) fn save(&self, name: &str, options: &[&str]) -> PathBuf {
        let path = self.path(name);
        let output = self.ctl(&[&["snapshot", path.to_str().unwrap()][..], options].concat());
        assert!(output.status.success(), "{output:?}");
        path
    }

    fn state(&self) -> Value {
        from_slice::<Value>(&self.ctl(&["status"]).stdout).unwrap()["state"].clone()
    }

    fn wait_until_built(&self) {
        let is_built = || self.path("vm.sock").exists() && self.state() != "not_running";
        wait_until("there is a machine", DEADLINE, is_built);
    }

    #[track_caller]
    pub(crate) fn echoes(&mut self, text: &str) {
        self.monitor.send(text.as_bytes());
        self.monitor.expect(text, DEADLINE);
    }

    pub(crate) fn quit(mut self) {
        assert!(self.ctl(&["quit"]).status.success());
        self.monitor.expect_code(0, DEADLINE);
    }
}

/// The machine of a snapshot, with a control socket of its own in a new directory.
pub(crate) fn restored(snapshot: &Path, options: &[&str]) -> Machine {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vm.sock");
    let args = ["restore", snapshot.to_str().unwrap(), "--control", socket.to_str().unwrap()];
    let monitor = Monitor::command(args).args(options).stdin(Stdin::Pipe).start();
    Machine { monitor, dir }
}

/// Asserts that no machine is started from this snapshot, and returns the message.
#[track_caller]
pub(crate) fn refusal(snapshot: &Path, options: &[&str]) -> String {
    let mut monitor = Monitor::command(["restore", snapshot.to_str().unwrap()]).args(options).start();
    monitor.expect_code(BAD_CONFIG, DEADLINE);
    assert_eq!(monitor.stdout(), b"");
    monitor.stderr()
}

pub(crate) fn manifest(snapshot: &Path) -> Value {
    from_slice(&fs::read(snapshot.join("manifest.json")).unwrap()).unwrap()
}

fn snapshot_of_a_running_machine_is_continued_and_the_machine_goes_on() {
    let mut machine = Machine::ready(json!({}));
    machine.echoes("before");
    let snapshot = machine.save("snap", &[]);
    machine.echoes("the machine itself");
    assert_eq!(machine.state(), "running");
    // At the same time as the first, with either sort of memory.
    for options in [&[][..], &["--memory", "copy"]] {
        let mut copy = restored(&snapshot, options);
        copy.echoes("its copy");
        assert_eq!(copy.state(), "running");
        copy.quit();
    }
    machine.echoes("still");
    machine.quit();
}

/// Of the directory's files only two are needed, wherever they are.
fn snapshot_in_two_files_is_restored() {
    let machine = Machine::ready(json!({}));
    let snapshot = machine.save("snap", &[]);
    let elsewhere = TempDir::new().unwrap();
    let [state, memory] = ["state", "memory"].map(|name| {
        let to = elsewhere.path().join(format!("its-{name}"));
        fs::rename(snapshot.join(name), &to).unwrap();
        to.to_str().unwrap().to_owned()
    });
    for options in [&[&*memory][..], &[&memory, "--memory", "copy"]] {
        let mut copy = restored(Path::new(&state), options);
        copy.echoes("from two files");
        copy.quit();
    }
    let refused = |snapshot: &str, options: &[&str]| {
        let mut monitor = Monitor::command(["restore", snapshot]).args(options).start();
        monitor.expect_code(USAGE, DEADLINE);
        monitor.stderr()
    };
    let told = refused(&state, &[]);
    assert!(
        told.ends_with(
            "its-state is a file: name the snapshot's directory, or also the file with its memory\n"
        ),
        "{told}"
    );
    let told = refusal(Path::new(&memory), &[&state]);
    assert!(told.contains("its-memory"), "{told}");
    machine.quit();
}

/// The pages that it hasn't changed are gone, so there is nothing that could be saved, and its guest ends.
fn snapshot_of_a_machine_whose_memory_file_was_shortened_is_refused() {
    let machine = Machine::ready(json!({}));
    let snapshot = machine.save("snap", &["--stop"]);
    let mut copy = restored(&snapshot, &["--paused"]);
    copy.wait_until_built();
    let file = fs::OpenOptions::new().write(true).open(snapshot.join("memory")).unwrap();
    file.set_len(0).unwrap();
    for options in [&[][..], &["--stop"]] {
        let output = copy.ctl(&[&["snapshot", copy.path("again").to_str().unwrap()], options].concat());
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("was shortened, so part of the guest's memory is lost"), "{message}");
        assert!(!copy.path("again").exists());
    }
    assert!(copy.ctl(&["resume"]).status.success());
    copy.monitor.expect_code(HOST_CANT, DEADLINE);
    let message = copy.monitor.stderr();
    assert!(message.contains("the memory file of the snapshot was shortened"), "{message}");
}

fn snapshot_of_a_paused_machine_leaves_it_paused() {
    let mut machine = Machine::ready(json!({}));
    assert!(machine.ctl(&["pause"]).status.success());
    let snapshot = machine.save("snap", &[]);
    assert_eq!(machine.state(), "paused");
    machine.monitor.send(b"x");
    machine.monitor.expect_quiet(Duration::from_millis(100));
    restored(&snapshot, &[]).echoes("runs at once");
    let mut waiting = restored(&snapshot, &["--paused"]);
    waiting.wait_until_built();
    assert_eq!(waiting.state(), "configured");
    assert!(waiting.ctl(&["resume"]).status.success());
    waiting.echoes("y");
    assert!(machine.ctl(&["resume"]).status.success());
    machine.monitor.expect("x", DEADLINE);
}

fn snapshot_of_a_machine_that_waits_for_its_start_begins_there() {
    let machine = Machine::echoing(json!({}), &["--paused"]);
    machine.wait_until_built();
    let snapshot = machine.save("snap", &[]);
    assert_eq!(machine.state(), "configured");
    let mut copy = restored(&snapshot, &[]);
    copy.monitor.expect("ready\n", DEADLINE);
    copy.echoes("begun");
}

/// Without interrupt controllers and timer.
fn snapshot_of_a_flat_guest_without_interrupts_begins_where_it_was() {
    let flat =
        json!({"image": guests::path("hello-real"), "mode": "real", "load_address": "0x0", "entry": "0x0"});
    let machine = Machine::echoing(
        json!({"boot": {"flat": flat}, "memory": {"size": "1M"}, "devices": []}),
        &["--paused"],
    );
    machine.wait_until_built();
    let snapshot = machine.save("snap", &["--stop"]);
    let mut copy = restored(&snapshot, &[]);
    copy.monitor.expect_code(0, DEADLINE);
    assert!(!copy.monitor.stdout().is_empty(), "it says hello");
}

fn snapshot_with_stop_ends_the_machine() {
    let mut machine = Machine::ready(json!({"devices": []}));
    let snapshot = machine.save("snap", &["--stop"]);
    machine.monitor.expect_code(0, DEADLINE);
    assert_eq!(machine.monitor.stderr(), "");
    restored(&snapshot, &[]).echoes("goes on");
}

fn snapshot_of_a_restored_machine_names_its_parent() {
    let machine = Machine::ready(json!({}));
    let first = machine.save("first", &["--stop"]);
    let mut machine = restored(&first, &[]);
    machine.echoes("between");
    let second = machine.save("second", &[]);
    machine.echoes("after");
    assert_eq!(manifest(&second)["parent"], manifest(&first)["id"]);
    assert_ne!(manifest(&second)["id"], manifest(&first)["id"]);
    restored(&second, &[]).echoes("third");
}

fn snapshot_with_several_processors_is_continued() {
    let mut machine = Machine::ready(json!({"cpus": {"count": 3}}));
    let snapshot = machine.save("snap", &[]);
    machine.echoes("three");
    let mut copy = restored(&snapshot, &[]);
    copy.echoes("and three");
    let status: Value = from_slice(&copy.ctl(&["status"]).stdout).unwrap();
    assert_eq!(status["machine"]["vcpus"], 3);
}

fn snapshot_of_a_flat_guest_with_interrupts_is_continued() {
    let flat = json!({
        "image": guests::path("echo-irq"), "load_address": "0x1000", "mode": "real", "entry": "0x1000", "stack": "0x7000"
    });
    let fields = json!({"boot": {"flat": flat}, "memory": {"size": "1M"}, "irqchip": true, "devices": []});
    let mut machine = Machine::ready(fields);
    machine.echoes("a");
    let snapshot = machine.save("snap", &[]);
    machine.echoes("b");
    restored(&snapshot, &[]).echoes("c");
}

fn snapshot_of_a_device_that_cant_be_saved_is_refused_by_its_name() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let disk = json!({"type": "block", "id": "scratch", "path": image.path(), "overlay": "temp"});
    let mut machine = Machine::ready(json!({"devices": [disk]}));
    let output = machine.ctl(&["snapshot", machine.path("snap").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("error: ") && message.contains("scratch"), "{message}");
    assert!(message.contains("a disk with a temporary overlay can't be saved"), "{message}");
    let left = fs::read_dir(machine.dir.path()).unwrap().count();
    assert_eq!(left, 2, "the config and the socket");
    machine.echoes("on");
}

fn snapshot_of_shared_memory_is_copied_and_not_mapped() {
    let machine = Machine::ready(json!({"memory": {"size": "32M", "shared": true}}));
    let snapshot = machine.save("snap", &["--stop"]);
    let message = refusal(&snapshot, &[]);
    assert!(message.contains("memory.shared needs --memory copy"), "{message}");
    restored(&snapshot, &["--memory", "copy"]).echoes("copied");
}

fn snapshot_that_is_damaged_starts_nothing() {
    let machine = Machine::ready(json!({}));
    let snapshot = machine.save("snap", &["--stop"]);
    let state = fs::read(snapshot.join("state")).unwrap();
    let with = |bytes: &[u8]| {
        fs::write(snapshot.join("state"), bytes).unwrap();
        refusal(&snapshot, &[])
    };
    let mut flipped = state.clone();
    flipped[state.len() / 2] ^= 1;
    let message = with(&flipped);
    assert!(message.contains("snap/state: ") && message.contains("damaged"), "{message}");
    let message = with(&state[..state.len() - 1]);
    assert!(message.contains("snap/state: "), "{message}");
    fs::write(snapshot.join("state"), &state).unwrap();
    let memory = fs::OpenOptions::new().write(true).open(snapshot.join("memory")).unwrap();
    memory.set_len((32 << 20) - 4096).unwrap();
    let message = refusal(&snapshot, &[]);
    assert!(message.contains("snap/memory: has 33550336 bytes, but 33554432 were saved"), "{message}");
    memory.set_len(32 << 20).unwrap();
    restored(&snapshot, &[]).echoes("whole again");
}

/// Its checksums are right, but KVM refuses the processor: with paging and without protected mode.
fn snapshot_that_kvm_refuses_is_the_snapshots_fault() {
    let machine = Machine::ready(json!({}));
    let snapshot = machine.save("snap", &["--stop"]);
    let mut state = fs::read(snapshot.join("state")).unwrap();
    change_vcpu(&mut state, |vcpu| vcpu.sregs.cr0 = 0x8000_0000);
    fs::write(snapshot.join("state"), state).unwrap();
    let message = refusal(&snapshot, &[]);
    assert!(message.contains("the snapshot can't be restored: KVM_SET_SREGS"), "{message}");
}

/// Changes the first processor in the bytes of a state (docs/snapshot.md).
fn change_vcpu(state: &mut [u8], change: impl FnOnce(&mut VcpuState)) {
    let number = |state: &[u8], at: usize| u64::from_le_bytes(state[at..at + 8].try_into().unwrap()) as usize;
    let directory = number(state, 16)..number(state, 16) + number(state, 24);
    let is_vcpu = |at: &usize| state[*at..].starts_with(b"vcpu\0");
    let record = directory.clone().step_by(48).find(is_vcpu).unwrap();
    let section = number(state, record + 28)..number(state, record + 28) + number(state, record + 36);
    let mut vcpu =
        VcpuState::load(VcpuState::VERSION, &mut FieldReader::new(&state[section.clone()])).unwrap();
    change(&mut vcpu);
    let mut fields = FieldWriter::new();
    vcpu.save(&mut fields);
    state[section.clone()].copy_from_slice(&fields.into_bytes());
    for (covered, at) in [(section, record + 44), (directory, 40), (0..44, 44)] {
        let crc = crc32(&state[covered]).to_le_bytes();
        state[at..at + 4].copy_from_slice(&crc);
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

fn snapshot_of_other_devices_or_memory_is_refused_by_field() {
    let machine = Machine::ready(json!({}));
    let snapshot = machine.save("snap", &["--stop"]);
    let mut monitor =
        Monitor::command(["restore", snapshot.to_str().unwrap(), "--set", "memory.size=64M"]).start();
    monitor.expect_code(2, DEADLINE);
    assert!(
        monitor.stderr().starts_with("error: --set memory.size: a restore can't change it"),
        "{}",
        monitor.stderr()
    );
    let message = refusal(&snapshot, &["--set", "devices.dice.rate=1"]);
    let expected = "snap/manifest.json: devices[0].rate: unknown field";
    assert!(message.contains(expected), "{message}");
    // The state of a machine, and the memory of another.
    let other = Machine::ready(json!({"memory": {"size": "48M"}}));
    let second = other.save("second", &["--stop"]);
    fs::copy(snapshot.join("state"), second.join("state")).unwrap();
    let message = refusal(&second, &[]);
    assert!(message.contains("manifest.json and the manifest in state differ"), "{message}");
}

fn snapshot_into_something_that_exists_leaves_the_machine_running() {
    let mut machine = Machine::ready(json!({}));
    fs::write(machine.path("file"), "precious").unwrap();
    let output = machine.ctl(&["snapshot", machine.path("file").to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("file: exists already"), "{output:?}");
    assert_eq!(fs::read_to_string(machine.path("file")).unwrap(), "precious");
    let mut names: Vec<_> =
        fs::read_dir(machine.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["file", "vm.json", "vm.sock"]);
    machine.echoes("on");
}
