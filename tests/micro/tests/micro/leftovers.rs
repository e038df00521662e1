//! A monitor that has ended leaves nothing.

use std::path::Path;

use driver::{DEADLINE, Line, Monitor, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{BY_SIGTERM, ENDED, boot};

pub(crate) fn tests() -> Vec<Trial> {
    trials![twenty_monitors_at_once_leave_nothing, monitor_killed_by_sigkill_leaves_no_process]
}

/// A monitor whose every file would be in `dir`.
fn start_in(dir: &Path, number: usize, guest: &str) -> Monitor {
    let socket = format!("socket:{}", dir.join(format!("{number}.sock")).display());
    boot(guest).args(["--serial", &socket]).env("TMPDIR", dir).dir(dir).start()
}

fn is_running(monitor: &Monitor) -> bool {
    Path::new(&format!("/proc/{}", monitor.pid())).exists()
}

fn twenty_monitors_at_once_leave_nothing() {
    let dir = TempDir::new().unwrap();
    let mut killed: Vec<_> = (0..10).map(|number| start_in(dir.path(), number, "halt")).collect();
    let mut ended: Vec<_> = (10..20).map(|number| start_in(dir.path(), number, "echo")).collect();
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    wait_until("twenty sockets", DEADLINE, || files() == 20);

    killed.iter().for_each(|monitor| monitor.signal(Signal::SIGTERM));
    let connect = |number| Line::connect(&dir.path().join(format!("{number}.sock"))).unwrap();
    let mut clients: Vec<_> = (10..20).map(connect).collect();
    clients.iter_mut().for_each(|client| client.send(b"\x04"));

    killed.iter_mut().for_each(|monitor| monitor.expect_code(BY_SIGTERM, DEADLINE));
    ended.iter_mut().for_each(|monitor| monitor.expect_code(ENDED, DEADLINE));
    assert_eq!(files(), 0);
    assert!(!killed.iter().chain(&ended).any(is_running));
}

/// Nothing of it can tidy up then: the kernel must be able to, threads and machine and all.
fn monitor_killed_by_sigkill_leaves_no_process() {
    let mut monitor = boot("halt").start();
    monitor.expect("ready\n", DEADLINE);
    monitor.signal(Signal::SIGKILL);
    monitor.expect_exit(DEADLINE);
    assert!(!is_running(&monitor));
}
