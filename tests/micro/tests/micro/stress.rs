//! Many monitors with devices, started repeatedly: none leaves anything behind.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use driver::{DEADLINE, Launch, Monitor, Stdin, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{BY_SIGTERM, ENDED, boot};

const ROUNDS: usize = 10;
/// Number of monitors per round; half are ended by a signal, half by their guests.
const MONITORS: usize = 20;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        stress_twenty_monitors_on_one_disk_ten_times_leave_nothing,
        stress_ten_restarts_keep_descriptors_and_threads,
    ]
}

/// A directory with a disk, and a config that uses it twice: read-only, and as the base of a temporary overlay. By MMIO, because the
/// guests have no drivers, and a guest without drivers for its PCI devices gets a hint.
fn dir_with(more: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("base"), vec![0x5a; 1 << 20]).expect("room for a disk");
    let config = format!(
        r#"{{{more} "transport": "mmio", "devices": [{{"type": "block", "id": "base", "path": "base", "read_only": true}},
            {{"type": "block", "id": "temp", "path": "base", "overlay": "temp"}}, {{"type": "rng", "id": "rng"}}]}}"#
    );
    fs::write(dir.path().join("vm.json"), config).expect("room for a config");
    dir
}

fn launch(dir: &Path, guest: &str) -> Launch {
    boot(guest).args(["--config", "vm.json"]).env("TMPDIR", dir).dir(dir).stdin(Stdin::Pipe)
}

/// Tries to lock the whole file for writing.
fn lock(file: &File) -> nix::Result<()> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
}

fn open_to_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("the disk is there")
}

/// The names of the monitor's threads, once all have one: a thread sets its own name, and has the main thread's until then. KVM's worker
/// threads, which belong to the process that has the VM, are left out.
fn threads(monitor: &Monitor) -> Vec<String> {
    let is_settled = || {
        let all = monitor.thread_names();
        all[1..].iter().all(|name| *name != all[0])
    };
    wait_until("all threads have their names", DEADLINE, is_settled);
    let mut names = monitor.thread_names();
    names.retain(|name| !name.starts_with("kvm-"));
    names.sort();
    names
}

fn descriptors(monitor: &Monitor) -> usize {
    fs::read_dir(format!("/proc/{}/fd", monitor.pid())).expect("it runs").count()
}

fn start_and_end_all(dir: &Path) {
    let start = |guest| launch(dir, guest).start();
    let mut halted: Vec<_> = (0..MONITORS / 2).map(|_| start("halt")).collect();
    let mut echoing: Vec<_> = (0..MONITORS / 2).map(|_| start("echo")).collect();
    halted.iter_mut().chain(&mut echoing).for_each(|monitor| {
        monitor.expect("ready\n", DEADLINE);
    });
    let threads = threads(&halted[0]);
    assert!(threads.iter().any(|name| name == "vq-base"), "{threads:?}");
    let jobs: Vec<_> = threads.iter().filter(|name| name.starts_with("job")).collect();
    assert_eq!(jobs, ["jobs"]);
    assert_eq!(lock(&open_to_write(&dir.join("base"))), Err(Errno::EAGAIN), "they have it");

    // Alternately, so that ending and running monitors are mixed.
    halted.iter().zip(&mut echoing).for_each(|(halted, echoing)| {
        halted.signal(Signal::SIGTERM);
        echoing.send(b"\x04");
    });
    halted.iter_mut().for_each(|monitor| monitor.expect_code(BY_SIGTERM, DEADLINE));
    echoing.iter_mut().for_each(|monitor| monitor.expect_code(ENDED, DEADLINE));
    halted.iter().chain(&echoing).for_each(|monitor| {
        // What is said of an end that takes longer than a second depends on the host's speed.
        let said = monitor.stderr();
        let lines: Vec<_> = said.lines().filter(|line| !line.starts_with(" WARN still ")).collect();
        assert_eq!(lines, [""; 0]);
        assert!(!Path::new(&format!("/proc/{}", monitor.pid())).exists());
    });
    assert_eq!(lock(&open_to_write(&dir.join("base"))), Ok(()), "nobody has it");
}

fn stress_twenty_monitors_on_one_disk_ten_times_leave_nothing() {
    let dir = dir_with("");
    (0..ROUNDS).for_each(|_| start_and_end_all(dir.path()));
    let mut left: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["base", "vm.json"]);
    assert!(fs::read(dir.path().join("base")).unwrap() == vec![0x5a; 1 << 20], "the disk has changed");
}

fn stress_ten_restarts_keep_descriptors_and_threads() {
    let dir = dir_with(r#""on_reboot": "restart","#);
    let mut monitor = launch(dir.path(), "echo").start();
    monitor.expect("ready\n", DEADLINE);
    let before = (descriptors(&monitor), threads(&monitor));
    (0..ROUNDS).for_each(|_| {
        monitor.send(b"\x04");
        monitor.expect("bye\nready\n", DEADLINE);
    });
    assert_eq!((descriptors(&monitor), threads(&monitor)), before);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(lock(&open_to_write(&dir.path().join("base"))), Ok(()), "nobody has it");
}
