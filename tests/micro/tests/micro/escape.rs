//! What an attacker could try who controls a thread of the monitor. The program has hooks for it: see vmm-sandbox's feature
//! `escape-hooks`.

use std::env;
use std::fs;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use driver::{DEADLINE, Launch, Monitor, Stdin, example, guests};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use nix::unistd::getuid;
use tempfile::TempDir;

use crate::common::{missing_wall, trial_with};

/// 128 + SIGSYS.
pub(crate) const STOPPED: i32 = 159;

/// Attempts that no thread's filter allows, and their system calls.
pub(crate) const STOPPED_ATTEMPTS: &[(&str, &str)] = &[
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
pub(crate) const NETWORK_ATTEMPTS: &[(&str, &str)] =
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
    // The network namespace has no routes.
    ("connect-outside", "ENETUNREACH"),
];

/// The threads of a machine without a network card.
const ROLES: &[&str] = &[
    "main",
    "jobs",
    "reader",
    "writer",
    "control",
    "control-close",
    "vcpu0",
    "vq-d",
    "vq-c",
    "vq-v",
    "vq-r",
    "vq-b",
    "vq-m",
];

pub(crate) const USER_CARD: &str =
    r#", {"type": "net", "id": "n", "backend": "user", "allow": ["tcp:*:443"]}"#;

const TCP: &str = "Landlock, TCP ports";
const SCOPES: &str = "Landlock, signals and abstract sockets";

pub(crate) fn tests() -> Vec<Trial> {
    let of_role = |role: &'static str| {
        Trial::test(format!("escape_from_{role}_is_stopped"), move || {
            let machine = Machine::new("");
            stops(role, &[sample(STOPPED_ATTEMPTS), sample(NETWORK_ATTEMPTS)], |attempt| {
                machine.attempt(role, attempt)
            });
            Ok(())
        })
    };
    let behind = trial_with(
        "escape_past_the_filter_meets_other_walls",
        || missing_wall(&["namespaces", "Landlock, files"]),
        rig::guests_required,
        escape_past_the_filter_meets_other_walls,
    );
    let tap = trial_with(
        "escape_from_a_card_with_a_tap_is_stopped",
        || missing_tap("/dev/net/tun"),
        rig::guests_required,
        escape_from_a_card_with_a_tap_is_stopped,
    );
    // Many a host that runs these tests has no vhost, and the rig has it.
    let vhost = trial_with(
        "escape_from_a_card_with_vhost_is_stopped",
        || missing_tap("/dev/vhost-net"),
        rig::in_rig,
        escape_from_a_card_with_vhost_is_stopped,
    );
    let vhost_vsock = trial_with(
        "escape_from_a_vsock_with_vhost_is_stopped",
        || missing_tap("/dev/vhost-vsock"),
        rig::in_rig,
        escape_from_a_vsock_with_vhost_is_stopped,
    );
    let others = harness::trials![
        escape_from_a_card_with_the_user_backend_is_stopped,
        escape_from_a_card_with_passt_is_stopped,
        escape_from_a_pool_of_threads_is_stopped,
        panic_under_a_filter_is_reported,
        panic_under_a_filter_is_reported_with_a_backtrace_asked_for,
        allocation_that_fails_under_a_filter_aborts_with_a_backtrace_asked_for,
    ];
    ROLES.iter().copied().map(of_role).chain([behind, tap, vhost, vhost_vsock]).chain(others).collect()
}

/// A machine whose guest prints "ready", with all kinds of devices besides network cards.
pub(crate) struct Machine(TempDir);

impl Machine {
    pub(crate) fn new(more_devices: &str) -> Self {
        let machine = Self(TempDir::new().unwrap());
        fs::create_dir(machine.path("")).unwrap();
        for (name, len) in [("disk", 1 << 20), ("memory", 2 << 20), ("input", 0)] {
            fs::File::create(machine.path(name)).unwrap().set_len(len).unwrap();
        }
        let kernel = guests::path("echo");
        let config = format!(
            r#"{{"boot": {{"kernel": {kernel:?}}}, "memory": {{"size": "32M"}}, "control": "c.sock", "devices": [
                {{"type": "block", "id": "d", "path": "disk"}}, {{"type": "pmem", "id": "m", "path": "memory"}},
                {{"type": "console", "id": "c", "target": "none"}}, {{"type": "vsock", "id": "v", "path": "v.sock"}},
                {{"type": "rng", "id": "r"}}, {{"type": "balloon", "id": "b"}}{more_devices}]}}"#
        );
        fs::write(machine.path("vm.json"), config).unwrap();
        machine
    }

    /// In its directory, which is one of the temporary directory's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("vm").join(name)
    }

    /// With an `attempt` as VMM_ESCAPE has it, and a file as its input, which a thread reads.
    pub(crate) fn launch(&self, attempt: &str) -> Launch {
        launch(&self.path(""), attempt).stdin(Stdin::File(self.path("input")))
    }

    fn attempt(&self, role: &str, attempt: &str) -> Launch {
        self.launch(&format!("{role}:{attempt}"))
    }
}

fn launch(dir: &Path, attempt: &str) -> Launch {
    Launch::new(&example("escape"), ["--config", "vm.json", "--metrics", "counters"])
        .dir(dir)
        .env("VMM_ESCAPE", attempt)
}

/// The monitor has ended itself because of `call` in the thread `role`.
#[track_caller]
pub(crate) fn assert_stopped(mut monitor: Monitor, role: &str, call: &str) {
    monitor.expect_code(STOPPED, DEADLINE);
    let line = format!("error: the sandbox stopped the thread {role}: system call {call} with 0x");
    assert!(monitor.stderr().contains(&line), "{line} isn't in {}", monitor.stderr());
}

#[track_caller]
fn assert_answered(mut monitor: Monitor, role: &str, attempt: &str, answers: &[&str]) {
    monitor.expect_stderr(&format!("escape: {role}: {attempt}: "), DEADLINE);
    let has = |answer: &&str| monitor.stderr().contains(&format!("escape: {role}: {attempt}: {answer}\n"));
    assert!(answers.iter().any(has), "none of {answers:?} is in {}", monitor.stderr());
    monitor.expect("ready\n", DEADLINE);
}

/// All of `attempts`; the first, where the tests are repeated in the rig: a filter doesn't depend on KVM.
pub(crate) fn sample(
    attempts: &'static [(&'static str, &'static str)],
) -> &'static [(&'static str, &'static str)] {
    let is_repeated = rig::in_rig() && env::var_os(harness::USE_RIG).is_some_and(|value| value == "1");
    if is_repeated { &attempts[..1] } else { attempts }
}

/// The thread `role` of the monitor that `launch` starts for each attempt.
#[track_caller]
fn stops(role: &str, attempts: &[&[(&str, &str)]], launch: impl Fn(&str) -> Launch) {
    for (attempt, call) in attempts.iter().copied().flatten() {
        assert_stopped(launch(attempt).start(), role, call);
    }
    for (attempt, error) in REFUSED_ATTEMPTS {
        assert_answered(launch(attempt).start(), role, attempt, &[error]);
    }
}

/// It opens sockets, with TCP to the ports of `allow` only.
fn escape_from_a_card_with_the_user_backend_is_stopped() {
    let machine = Machine::new(USER_CARD);
    let attempts = [sample(STOPPED_ATTEMPTS), sample(SOCKET_ATTEMPTS)];
    stops("vq-n", &attempts, |attempt| machine.attempt("vq-n", attempt));
    // Without Landlock's limits of ports, nobody listens there.
    let answers: &[&str] = match missing_wall(&[TCP]) {
        None => &["EACCES"],
        Some(_) => &["ECONNREFUSED", "EINPROGRESS"],
    };
    let monitor = machine.attempt("vq-n", "connect-loopback").start();
    assert_answered(monitor, "vq-n", "connect-loopback", answers);
}

/// It only has the socket that was connected at the start.
fn escape_from_a_card_with_passt_is_stopped() {
    let machine = Machine::new(r#", {"type": "net", "id": "n", "backend": {"passt": "passt.sock"}}"#);
    let passt = UnixListener::bind(machine.path("passt.sock")).unwrap();
    let attempts = [sample(STOPPED_ATTEMPTS), sample(NETWORK_ATTEMPTS)];
    stops("vq-n", &attempts, |attempt| machine.attempt("vq-n", attempt));
    drop(passt);
}

/// The command that runs a program in a network namespace in which it may make a TAP.
fn own_network() -> &'static [&'static str] {
    if getuid().is_root() { &["unshare", "--net"] } else { &["unshare", "--map-root-user", "--net"] }
}

/// Why a monitor in [`own_network`] can't open `device`.
fn missing_tap(device: &str) -> Option<String> {
    let [program, arguments @ ..] = own_network() else { unreachable!("it is a constant") };
    let mut command = Command::new(program);
    let test = ["test", "-c", device, "-a", "-r", device, "-a", "-w", device];
    let output = command.args(arguments).args(test).output().unwrap();
    (!output.status.success()).then(|| format!("{device} isn't there or isn't open to this user"))
}

#[track_caller]
fn stops_in_own_network(role: &str, device: &str) {
    let machine = Machine::new(device);
    let launch = |attempt: &str| machine.attempt(role, attempt).wrapped(own_network());
    stops(role, &[STOPPED_ATTEMPTS, NETWORK_ATTEMPTS], launch);
}

fn escape_from_a_card_with_a_tap_is_stopped() {
    stops_in_own_network("vq-n", r#", {"type": "net", "id": "n", "backend": {"tap": "escape"}}"#);
}

/// What moves the frames is a thread of the kernel, which makes no system calls. The monitor's thread sets it up.
fn escape_from_a_card_with_vhost_is_stopped() {
    stops_in_own_network(
        "vq-n",
        r#", {"type": "net", "id": "n", "backend": {"tap": "escape"}, "vhost": true}"#,
    );
}

fn escape_from_a_vsock_with_vhost_is_stopped() {
    stops_in_own_network("vq-k", r#", {"type": "vsock", "id": "k", "cid": 159, "vhost": true}"#);
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
    for (attempt, call) in [STOPPED_ATTEMPTS, NETWORK_ATTEMPTS].into_iter().flat_map(sample) {
        let attempt = format!("io-d:{attempt}");
        let mut monitor = launch(dir.path(), &attempt).stdin(Stdin::Pipe).start();
        monitor.expect("ready\n", DEADLINE);
        monitor.send(b"1");
        assert_stopped(monitor, "io-d", call);
    }
}

/// As if the filter had a hole.
fn escape_past_the_filter_meets_other_walls() {
    let machine = Machine::new("");
    let has = |wall| missing_wall(&[wall]).is_none();
    let more = [
        ("connect-loopback", if has(TCP) { "EACCES" } else { "ENETUNREACH" }),
        ("bind", if has(TCP) { "EACCES" } else { "done" }),
        // An ordinary user may signal its own processes.
        ("kill", if has(SCOPES) || getuid().is_root() { "EPERM" } else { "done" }),
    ];
    for (attempt, answer) in BEHIND_THE_FILTER.iter().chain(&more) {
        let monitor = machine.attempt("vcpu0", attempt).args(["--sandbox", "log"]).start();
        assert_answered(monitor, "vcpu0", attempt, &[answer]);
    }
    // With the host's network.
    let machine = Machine::new(USER_CARD);
    let monitor = machine.attempt("vcpu0", "bind").args(["--sandbox", "log"]).start();
    assert_answered(monitor, "vcpu0", "bind", &[if has(TCP) { "EACCES" } else { "done" }]);
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

/// Not by 159 for what a backtrace reads.
fn allocation_that_fails_under_a_filter_aborts_with_a_backtrace_asked_for() {
    for role in ["main", "vcpu0"] {
        let machine = Machine::new("");
        let mut monitor = machine.attempt(role, "allocate").env("RUST_BACKTRACE", "1").start();
        monitor.expect_stderr("memory allocation of 4096 bytes failed\n", DEADLINE);
        assert_eq!(monitor.expect_exit(DEADLINE).signal(), Some(Signal::SIGABRT as i32));
    }
}

fn panic_under_a_filter_is_reported_with_a_backtrace_asked_for() {
    for role in ["main", "vcpu0"] {
        assert_panic_is_reported(role, "1");
    }
}
