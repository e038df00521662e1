//! A monitor that has ended leaves nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use driver::{DEADLINE, Line, Monitor, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{BY_SIGTERM, ENDED, boot};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        twenty_monitors_at_once_leave_nothing,
        monitor_killed_by_sigkill_leaves_no_process,
        monitor_keeps_no_descriptor_but_those_it_is_given,
        monitor_gets_no_new_privileges,
        files_of_a_monitor_are_its_users_alone_under_any_umask,
    ]
}

/// Starts a monitor that would create all its files in `dir`.
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
    // A socket is bound under a temporary name first.
    let has_name = |number: usize| dir.path().join(format!("{number}.sock")).exists();
    wait_until("twenty sockets", DEADLINE, || (0..20).all(has_name));

    killed.iter().for_each(|monitor| monitor.signal(Signal::SIGTERM));
    let connect = |number| Line::connect(&dir.path().join(format!("{number}.sock"))).unwrap();
    let mut clients: Vec<_> = (10..20).map(connect).collect();
    clients.iter_mut().for_each(|client| client.send(b"\x04"));

    killed.iter_mut().for_each(|monitor| monitor.expect_code(BY_SIGTERM, DEADLINE));
    ended.iter_mut().for_each(|monitor| monitor.expect_code(ENDED, DEADLINE));
    assert_eq!(files(), 0);
    assert!(!killed.iter().chain(&ended).any(is_running));
}

/// The monitor can't clean up, so the kernel must be able to remove its threads and its machine.
fn monitor_killed_by_sigkill_leaves_no_process() {
    let mut monitor = boot("halt").start();
    monitor.expect("ready\n", DEADLINE);
    monitor.signal(Signal::SIGKILL);
    monitor.expect_exit(DEADLINE);
    assert!(!is_running(&monitor));
}

/// Starts a shell that runs `script` and then executes the monitor.
fn start_after(script: &str, args: &[&str]) -> Monitor {
    let script = format!(r#"{script}; exec "$0" "$@""#);
    let mut monitor = boot("halt").args(args).wrapped(["sh", "-c", &script]).start();
    monitor.expect("ready\n", DEADLINE);
    monitor
}

/// The open files of a monitor.
fn open_files(monitor: &Monitor) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{}/fd", monitor.pid())).unwrap();
    entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).collect()
}

/// The shell opens two files, one of which is named on the command line.
fn monitor_keeps_no_descriptor_but_those_it_is_given() {
    let dir = TempDir::new().unwrap();
    let (forgotten, given) = (dir.path().join("forgotten"), dir.path().join("given"));
    let script = format!("exec 7>'{}' 8>'{}'", forgotten.display(), given.display());
    let monitor = start_after(&script, &["--log-file", "/dev/fd/8"]);
    let open = open_files(&monitor);
    assert!(open.contains(&given) && !open.contains(&forgotten), "{open:?}");
}

fn monitor_gets_no_new_privileges() {
    let monitor = start_after(":", &[]);
    let status = fs::read_to_string(format!("/proc/{}/status", monitor.pid())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
}

fn files_of_a_monitor_are_its_users_alone_under_any_umask() {
    for umask in ["0", "0777"] {
        let dir = TempDir::new().unwrap();
        let names = ["console.sock", "log", "metrics", "console.txt"].map(|name| dir.path().join(name));
        let [socket, log, metrics, text] = names.each_ref().map(|path| path.to_str().unwrap());
        let serials = [format!("socket:{socket}"), format!("file:{text}")];
        let modes = serials.map(|serial| {
            let args = ["--serial", &serial, "--log-file", log, "--metrics", metrics];
            let script = format!(r#"umask {umask}; exec "$0" "$@""#);
            let monitor = boot("halt").args(args).wrapped(["sh", "-c", &script]).start();
            let console = Path::new(&serial[serial.find(':').unwrap() + 1..]);
            wait_until("there is a console", DEADLINE, || console.exists());
            let modes = [console, &names[1], &names[2]]
                .map(|path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777);
            drop(monitor);
            modes
        });
        assert_eq!(modes, [[0o600; 3]; 2], "umask {umask}");
    }
}
