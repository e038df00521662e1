//! What an attacker could try who controls a thread of the monitor. The program has hooks for it: see vmm-sandbox's feature
//! `escape-hooks`.

use std::fs;
use std::path::Path;

use driver::{DEADLINE, Launch, Monitor, Stdin, example, guests};
use libtest_mimic::{Completion, Trial};
use tempfile::TempDir;

use crate::common::missing_walls;

/// 128 + SIGSYS.
const STOPPED: i32 = 159;

/// Attempts that no thread's filter allows, and their system calls.
const STOPPED_ATTEMPTS: &[(&str, &str)] = &[
    ("personality", "personality (135)"),
    ("openat", "openat (257)"),
    ("ptrace", "ptrace (101)"),
    ("execve", "execve (59)"),
    ("mount", "mount (165)"),
    ("unshare", "unshare (272)"),
    ("kill", "kill (62)"),
    ("mmap", "mmap (9)"),
    ("mprotect", "mprotect (10)"),
    ("io_uring", "io_uring_setup (425)"),
    ("tiocsti", "ioctl (16)"),
    ("datagrams", "socketpair (53)"),
];

/// No thread opens sockets of a network, except that of a network card in the monitor.
const NETWORK_ATTEMPTS: &[(&str, &str)] =
    &[("connect-loopback", "socket (41)"), ("connect-outside", "socket (41)")];

/// What a network card may not do with the sockets that it may have: Landlock compares no ports there.
const SOCKET_ATTEMPTS: &[(&str, &str)] =
    &[("mptcp", "socket (41)"), ("sctp", "socket (41)"), ("fast-open", "sendto (44)")];

/// Those for which the filter answers with an error.
const REFUSED_ATTEMPTS: &[(&str, &str)] = &[("fork", "EPERM"), ("clone3", "ENOSYS")];

/// What the other walls answer where filters only log.
const BEHIND_THE_FILTER: &[(&str, &str)] = &[
    ("personality", "done"),
    // It doesn't exist in the empty root.
    ("openat", "ENOENT"),
    ("execve", "ENOENT"),
    // The empty root exists, but Landlock refuses it.
    ("openat-root", "EACCES"),
    ("mount", "EPERM"),
    ("unshare", "EPERM"),
    ("ptrace", "EPERM"),
    ("kill", "EPERM"),
    // TCP is refused by Landlock, and the network namespace has no routes.
    ("connect-loopback", "EACCES"),
    ("connect-outside", "ENETUNREACH"),
];

/// The threads of a machine without a network card.
const ROLES: &[&str] = &["main", "jobs", "writer", "vcpu0", "vq-d", "vq-c", "vq-v", "vq-r", "vq-b", "vq-m"];

pub(crate) fn tests() -> Vec<Trial> {
    let of_role = |role: &'static str| {
        Trial::test(format!("escape_from_{role}_is_stopped"), move || {
            stops(&Machine::new(""), role, &[STOPPED_ATTEMPTS, NETWORK_ATTEMPTS]);
            Ok(())
        })
    };
    let behind = Trial::ignorable_test("escape_past_the_filter_meets_other_walls", || {
        Ok(match missing_walls() {
            None => {
                escape_past_the_filter_meets_other_walls();
                Completion::Completed
            }
            Some(missing) => Completion::ignored_with(missing),
        })
    });
    let card = Trial::test("escape_from_a_network_card_is_stopped", || {
        escape_from_a_network_card_is_stopped();
        Ok(())
    });
    let others = harness::trials![
        escape_from_a_pool_of_threads_is_stopped,
        panic_under_a_filter_is_reported,
        panic_under_a_filter_is_reported_with_a_backtrace_asked_for,
    ];
    ROLES.iter().copied().map(of_role).chain([behind, card]).chain(others).collect()
}

/// A machine with all kinds of devices, whose guest prints "ready".
struct Machine(TempDir);

impl Machine {
    fn new(more_devices: &str) -> Self {
        let dir = TempDir::new().unwrap();
        for (name, len) in [("disk", 1 << 20), ("memory", 2 << 20)] {
            fs::File::create(dir.path().join(name)).unwrap().set_len(len).unwrap();
        }
        let kernel = guests::path("echo");
        let config = format!(
            r#"{{"boot": {{"kernel": {kernel:?}}}, "memory": {{"size": "32M"}}, "devices": [
                {{"type": "block", "id": "d", "path": "disk"}}, {{"type": "pmem", "id": "m", "path": "memory"}},
                {{"type": "console", "id": "c", "target": "none"}}, {{"type": "vsock", "id": "v", "path": "v.sock"}},
                {{"type": "rng", "id": "r"}}, {{"type": "balloon", "id": "b"}}{more_devices}]}}"#
        );
        fs::write(dir.path().join("vm.json"), config).unwrap();
        Self(dir)
    }

    fn attempt(&self, role: &str, attempt: &str) -> Launch {
        launch(self.0.path(), role, attempt)
    }
}

fn launch(dir: &Path, role: &str, attempt: &str) -> Launch {
    Launch::new(&example("escape"), ["--config", "vm.json", "--metrics", "counters"])
        .dir(dir)
        .stdin(Stdin::Pipe)
        .env("VMM_ESCAPE", format!("{role}:{attempt}"))
}

/// The monitor has ended itself because of `call` in the thread `role`.
#[track_caller]
fn assert_stopped(mut monitor: Monitor, role: &str, call: &str) {
    monitor.expect_code(STOPPED, DEADLINE);
    let line = format!("error: the sandbox stopped the thread {role}: system call {call} with 0x");
    assert!(monitor.stderr().contains(&line), "{line} isn't in {}", monitor.stderr());
}

#[track_caller]
fn assert_answered(mut monitor: Monitor, role: &str, attempt: &str, answer: &str) {
    monitor.expect_stderr(&format!("escape: {role}: {attempt}: "), DEADLINE);
    let line = format!("escape: {role}: {attempt}: {answer}\n");
    assert!(monitor.stderr().contains(&line), "{line} isn't in {}", monitor.stderr());
    monitor.expect("ready\n", DEADLINE);
}

#[track_caller]
fn stops(machine: &Machine, role: &str, attempts: &[&[(&str, &str)]]) {
    for (attempt, call) in attempts.iter().copied().flatten() {
        assert_stopped(machine.attempt(role, attempt).start(), role, call);
    }
    for (attempt, error) in REFUSED_ATTEMPTS {
        assert_answered(machine.attempt(role, attempt).start(), role, attempt, error);
    }
}

/// It opens sockets, with TCP to the ports of `allow` only.
fn escape_from_a_network_card_is_stopped() {
    let card = r#", {"type": "net", "id": "n", "backend": "user", "allow": ["tcp:*:443"]}"#;
    let machine = Machine::new(card);
    stops(&machine, "vq-n", &[STOPPED_ATTEMPTS, SOCKET_ATTEMPTS]);
    // Without Landlock's limits of ports, nobody listens there.
    let limits = vmm_sandbox::probe().expect("a child process");
    let limits = limits.iter().any(|wall| wall.name.contains("TCP") && wall.is_up());
    let refusal = if limits { "EACCES" } else { "ECONNREFUSED" };
    let monitor = machine.attempt("vq-n", "connect-loopback").start();
    assert_answered(monitor, "vq-n", "connect-loopback", refusal);
}

/// Its threads start with the first request.
fn escape_from_a_pool_of_threads_is_stopped() {
    let dir = TempDir::new().unwrap();
    fs::File::create(dir.path().join("disk")).unwrap().set_len(1 << 20).unwrap();
    let image = guests::path("disk-read");
    let config = format!(
        r#"{{"boot": {{"flat": {{"image": {image:?}, "mode": "protected"}}}}, "irqchip": true,
            "devices": [{{"type": "block", "id": "d", "path": "disk", "read_only": true, "io": "threads"}}]}}"#
    );
    fs::write(dir.path().join("vm.json"), config).unwrap();
    for (attempt, call) in [STOPPED_ATTEMPTS, NETWORK_ATTEMPTS].into_iter().flatten() {
        let mut monitor = launch(dir.path(), "io-d", attempt).start();
        monitor.expect("ready\n", DEADLINE);
        monitor.send(b"1");
        assert_stopped(monitor, "io-d", call);
    }
}

/// As if the filter had a hole.
fn escape_past_the_filter_meets_other_walls() {
    let machine = Machine::new("");
    for (attempt, answer) in BEHIND_THE_FILTER {
        let monitor = machine.attempt("vcpu0", attempt).args(["--sandbox", "log"]).start();
        assert_answered(monitor, "vcpu0", attempt, answer);
    }
}

#[track_caller]
fn assert_panic_is_reported(role: &str, backtrace: &str) {
    let machine = Machine::new("");
    let mut monitor = machine.attempt(role, "panic").env("RUST_BACKTRACE", backtrace).start();
    let line = format!("thread '{role}' panicked at crates/sandbox/src/escape.rs:");
    monitor.expect_stderr(&line, DEADLINE);
    monitor.expect_stderr("an attempt to panic\n", DEADLINE);
}

fn panic_under_a_filter_is_reported() {
    for role in ["main", "jobs", "vcpu0", "vq-d"] {
        assert_panic_is_reported(role, "0");
    }
}

fn panic_under_a_filter_is_reported_with_a_backtrace_asked_for() {
    for role in ["main", "vcpu0"] {
        assert_panic_is_reported(role, "1");
    }
}
