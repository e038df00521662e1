//! The monitor's threads and processes, as /proc shows them.

use std::fs;
use std::process::Command;

use driver::{DEADLINE, Monitor, wait_until};
use nix::unistd::Pid;

/// The files /proc/PID/task/*/status of the monitor, and of the path keeper.
pub(crate) fn statuses(monitor: &Monitor) -> Vec<String> {
    let pids = children(monitor.pid()).into_iter().chain([monitor.pid()]);
    let tasks = pids.flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).unwrap());
    // One that has ended meanwhile has no file.
    tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok()).collect()
}

fn children(pid: Pid) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap())).collect()
}

/// The value of a field of a status, with spaces between its words.
pub(crate) fn field(status: &str, name: &str) -> String {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.unwrap_or_else(|| panic!("no {name} in {status}"));
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The kernel's own threads in a process, by the beginnings of their names. They make no system calls: io_uring's, vhost's, and KVM's
/// for huge pages.
const KERNELS: [&str; 3] = ["iou-", "vhost-", "kvm-nx-lpage-re"];

/// The names of the threads that have a filter, in order, each once.
pub(crate) fn confined_threads(monitor: &Monitor) -> Vec<String> {
    let statuses = statuses(monitor);
    let lives = |status: &&String| !field(status, "State").starts_with('Z');
    let confined = statuses.iter().filter(|status| field(status, "Seccomp") == "2").filter(lives);
    let names = confined.map(|status| field(status, "Name"));
    let mut names: Vec<_> =
        names.filter(|name| !KERNELS.iter().any(|kernels| name.starts_with(kernels))).collect();
    names.sort();
    names.dedup();
    names
}

/// Has the thread called `name` make the attempt in VMM_ESCAPE, when it has its filter: see vmm-sandbox's feature `escape-hooks`.
pub(crate) fn command(monitor: &Monitor, name: &str) {
    let is_it = |status: &&String| field(status, "Name") == name && field(status, "Seccomp") == "2";
    let mut found = None;
    wait_until("the thread has its filter", DEADLINE, || {
        let statuses = statuses(monitor);
        found = statuses.iter().find(is_it).map(|status| (field(status, "Pid"), field(status, "Tgid")));
        found.is_some()
    });
    let (thread, process) = found.expect("it was waited for");
    let sent = Command::new("kill").args(["-q", &thread, "-s", "TRAP", &process]).status().unwrap();
    assert!(sent.success());
}
