//! Attempts to leave the sandbox while the guest runs, on command, from any thread; and whether the tests know every thread.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use driver::{DEADLINE, Monitor, Stdin, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use nix::sys::termios::LocalFlags;
use vmm_virtio_devices::KINDS;

use crate::common::{BY_SIGTERM, HOST_CANT, missing_wall, trial_with};
use crate::escape::{
    Machine, NETWORK_ATTEMPTS, STOPPED, STOPPED_ATTEMPTS, USER_CARD, assert_stopped, sample,
};
use crate::status::{command, confined_threads};

pub(crate) fn tests() -> Vec<Trial> {
    let removal = trial_with(
        "escape_from_the_path_keeper_removes_nothing_elsewhere",
        || missing_wall(&["Landlock, files"]),
        rig::guests_required,
        escape_from_the_path_keeper_removes_nothing_elsewhere,
    );
    let mut trials = trials![
        escape_on_command_from_every_thread_is_stopped,
        escape_from_the_path_keeper_ends_it_and_the_monitor_says_so,
        escape_from_the_path_keeper_before_it_serves_is_an_error,
        escape_tests_know_every_place_that_starts_a_thread,
        violation_of_a_vcpu_restores_the_terminal,
        violation_of_a_device_restores_the_terminal,
    ];
    trials.push(removal);
    trials
}

/// The name of a program that is started by its dynamic loader.
const LOADER: &str = "ld.so";

/// The threads of a machine with all kinds of devices, by the names that the kernel has for them. The reader of a file ends with it, and
/// a pool starts with the first request: `escape` has them.
const THREADS: &[&str] = &[
    "control",
    "control-close",
    "escape",
    "jobs",
    "path-keeper",
    "vcpu0",
    "vq-b",
    "vq-c",
    "vq-d",
    "vq-m",
    "vq-n",
    "vq-r",
    "vq-v",
    "writer",
];

/// Starts the program with hooks, and waits until its threads are confined and its guest runs.
fn run(machine: &Machine, attempt: &str) -> Monitor {
    let mut monitor = machine.launch(attempt).stdin(Stdin::Null).start();
    monitor.expect("ready\n", DEADLINE);
    wait_until("every thread has its filter", DEADLINE, || confined_threads(&monitor).len() >= THREADS.len());
    // The program's name is that of its dynamic loader, if a test starts it by that.
    let named = |name: String| if name == LOADER { "escape".to_owned() } else { name };
    let mut threads: Vec<_> = confined_threads(&monitor).into_iter().map(named).collect();
    threads.sort();
    assert_eq!(threads, THREADS);
    monitor
}

/// If this fails because a machine has a new thread, add it here and to the roles in `escape`.
fn escape_on_command_from_every_thread_is_stopped() {
    let machine = Machine::new(USER_CARD);
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(machine.path("vm.json")).unwrap()).unwrap();
    let kinds: BTreeSet<_> =
        config["devices"].as_array().unwrap().iter().map(|device| device["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, KINDS.iter().map(|kind| kind.name).collect(), "a device of each kind");
    for thread in THREADS.iter().copied().filter(|thread| *thread != "path-keeper") {
        let monitor = run(&machine, "unshare");
        let is_by_loader = confined_threads(&monitor).iter().any(|name| name == LOADER);
        command(&monitor, if thread == "escape" && is_by_loader { LOADER } else { thread });
        // The main thread has the program's name.
        assert_stopped(monitor, if thread == "escape" { "main" } else { thread }, "unshare (272)");
    }
}

/// It has neither the monitor's standard error nor its handler: the kernel kills it.
fn escape_from_the_path_keeper_ends_it_and_the_monitor_says_so() {
    let machine = Machine::new("");
    for (attempt, _) in sample(STOPPED_ATTEMPTS).iter().chain(sample(NETWORK_ATTEMPTS)) {
        let mut monitor = machine.launch(attempt).stdin(Stdin::Pipe).start();
        monitor.expect("ready\n", DEADLINE);
        command(&monitor, "path-keeper");
        monitor.expect_stderr("ERROR the path keeper has ended: ", DEADLINE);
        let ends = || !confined_threads(&monitor).contains(&"path-keeper".to_owned());
        wait_until("the keeper has ended", DEADLINE, ends);
        monitor.send(b"on\n");
        monitor.expect("on\n", DEADLINE);
        monitor.signal(Signal::SIGTERM);
        monitor.expect_code(BY_SIGTERM, DEADLINE);
        // Nobody is left to remove it. The next start does.
        assert!(machine.path("v.sock").exists());
    }
}

fn escape_from_the_path_keeper_before_it_serves_is_an_error() {
    let machine = Machine::new("");
    let mut monitor = machine.launch("path-keeper:unshare").start();
    monitor.expect_code(HOST_CANT, DEADLINE);
    assert!(monitor.stderr().contains("the path keeper ended before it was ready"), "{}", monitor.stderr());
    assert_eq!(monitor.stdout(), b"", "the guest has run");
}

/// Its filter permits the call, but Landlock only in the directories of what it is to remove.
fn escape_from_the_path_keeper_removes_nothing_elsewhere() {
    let machine = Machine::new("");
    let kept = machine.path("../kept");
    fs::write(&kept, "").unwrap();
    let mut monitor = machine.launch("unlink").stdin(Stdin::Pipe).start();
    monitor.expect("ready\n", DEADLINE);
    command(&monitor, "path-keeper");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    // It has served this request after the attempt.
    assert!(!machine.path("v.sock").exists());
    assert!(kept.exists());
}

/// What starts a thread or a process, besides tests. The threads of each file are in [`THREADS`] or have a test in `escape`, except those
/// of parallel.rs and worker.rs's "job", which have the filter of the main thread or of that of the jobs, which start them.
const STARTS: &[&str] = &[
    "crates/control/src/closer.rs",
    "crates/control/src/server.rs",
    "crates/hostio/src/file_io/threads.rs",
    "crates/hostio/src/path_keeper/fork.rs",
    "crates/machine/src/file_reader.rs",
    "crates/machine/src/file_writer.rs",
    "crates/machine/src/io_thread.rs",
    "crates/machine/src/parallel.rs",
    "crates/machine/src/worker.rs",
    // For `vmm-bin doctor`, and to try a user namespace before the walls.
    "crates/sandbox/src/child.rs",
    "crates/vcpu/src/thread.rs",
    "crates/virtio/src/worker.rs",
    // In `vmm-bin ctl`, which has no guest.
    "vmm-bin/src/ctl_snapshot.rs",
];

/// If this fails because of a new place, test the thread that starts there, and add the place.
fn escape_tests_know_every_place_that_starts_a_thread() {
    const WORDS: [&str; 5] =
        ["thread::spawn(", "thread::Builder::new()", "thread::scope(", " fork()", "Command::new("];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let crates = fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let sources = crates.chain([root.join("vmm-bin")]).flat_map(|krate| sources(&krate.join("src")));
    let starts = sources.filter(|path| {
        let text = fs::read_to_string(path).unwrap();
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let mut lines = product.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.any(|line| WORDS.iter().any(|word| line.contains(word)))
    });
    let mut starts: Vec<_> =
        starts.map(|path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()).collect();
    starts.sort();
    assert_eq!(starts, STARTS);
}

/// The sources below `directory`, besides those of tests.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_for_tests =
        |path: &Path| ["tests", "testing"].iter().any(|name| path.file_stem().unwrap() == *name);
    let of = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
    entries.filter(|path| !is_for_tests(path)).flat_map(of).collect()
}

/// With standard error on the terminal, too.
#[track_caller]
fn assert_terminal_is_restored(thread: &str) {
    let machine = Machine::new("");
    let launch = machine.launch("unshare").on_terminal().wrapped(["sh", "-c", r#"exec "$0" "$@" 2>&1"#]);
    let mut monitor = launch.start();
    monitor.expect("ready\n", DEADLINE);
    assert!(
        !monitor.termios().local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    );
    command(&monitor, thread);
    monitor.expect_code(STOPPED, DEADLINE);
    assert_eq!(monitor.termios(), monitor.termios_before());
    let said = String::from_utf8(monitor.stdout()).unwrap();
    let (_, line) = said.split_once("error: ").unwrap_or_else(|| panic!("{said}"));
    let start = format!("the sandbox stopped the thread {thread}: system call unshare (272) with 0x");
    assert!(line.starts_with(&start), "{line}");
    // A raw terminal would get no carriage return.
    assert!(line.ends_with("please report it with this line\r\n"), "{line:?}");
    assert_eq!(line.lines().count(), 1, "{line:?}");
}

fn violation_of_a_vcpu_restores_the_terminal() {
    assert_terminal_is_restored("vcpu0");
}

fn violation_of_a_device_restores_the_terminal() {
    assert_terminal_is_restored("vq-d");
}
