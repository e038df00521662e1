//! The log: empty unless requested, on standard error or in a file.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use driver::{DEADLINE, Monitor, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{BY_SIGTERM, ENDED, TIME_IS_UP, USAGE, boot, forbid_threads, unprivileged};

/// A line in the log of every run with `-v`.
const LINE: &str = "INFO first KVM_RUN";

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        log_is_empty_unless_asked_for,
        log_verbose_goes_to_stderr,
        log_file_has_it_instead_of_stderr,
        log_of_a_guest_that_resets_without_end_is_bounded,
        log_to_a_full_pipe_does_not_hold_up_a_timeout,
        log_to_a_full_pipe_does_not_hold_up_a_signal,
        log_file_that_is_a_pipe_without_a_reader_is_refused,
        error_in_a_file_needs_no_thread_at_the_end,
        log_of_many_sigusr1_without_metrics_has_one_line,
    ]
}

fn log_is_empty_unless_asked_for() {
    let mut monitor = boot("flood-1000").start();
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

fn log_verbose_goes_to_stderr() {
    let mut monitor = boot("flood-1000").args(["-v"]).start();
    monitor.expect_code(ENDED, DEADLINE);
    assert!(monitor.stderr().contains(LINE), "{}", monitor.stderr());
    assert!(!monitor.stderr().contains("DEBUG"), "{}", monitor.stderr());
}

/// With -v each start logs some lines.
fn log_of_a_guest_that_resets_without_end_is_bounded() {
    let dir = TempDir::new().unwrap();
    // mov al, 0xfe; out 0x64, al; hlt
    std::fs::write(dir.path().join("reset.bin"), b"\xb0\xfe\xe6\x64\xf4").unwrap();
    let config =
        r#"{"boot": {"flat": {"image": "reset.bin"}}, "memory": {"size": "1M"}, "on_reboot": "restart"}"#;
    std::fs::write(dir.path().join("vm.json"), config).unwrap();
    let mut monitor = Monitor::command(["--config", "vm.json", "-v"]).dir(dir.path()).start();
    monitor.expect_stderr("INFO the guest has reset its machine 100 times; only warnings", DEADLINE);
    let more = monitor.cpu_time() + Duration::from_millis(500);
    wait_until("it has started often again", DEADLINE, || monitor.cpu_time() > more);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(monitor.stderr().matches(LINE).count(), 100);
}

/// Creates a FIFO and returns its path.
fn fifo(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().expect("coreutils").success());
    path
}

/// Starts an echo guest; the monitor's standard error, with its log, is a full pipe.
fn boot_with_full_stderr(dir: &TempDir, args: &[&str]) -> (Monitor, File) {
    let path = fifo(dir);
    let pipe = File::options().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path);
    let mut pipe = pipe.expect("our own pipe");
    let is_full = |pipe: &mut File| pipe.write(&[b'x'; 4096]).is_err();
    wait_until("the pipe is full", DEADLINE, || is_full(&mut pipe));
    let shell = ["sh", "-c", r#"p="$1"; shift; exec "$@" 2>"$p""#, "sh"].map(Into::into);
    let words = shell.into_iter().chain([path.into_os_string()]);
    // The reading end stays open: the pipe has a reader that doesn't read.
    (boot("echo").args(["-vv"]).args(args).wrapped(words).start(), pipe)
}

fn log_to_a_full_pipe_does_not_hold_up_a_timeout() {
    let dir = TempDir::new().unwrap();
    let (mut monitor, _pipe) = boot_with_full_stderr(&dir, &["--timeout", "1s"]);
    monitor.expect_code(TIME_IS_UP, DEADLINE);
}

fn log_to_a_full_pipe_does_not_hold_up_a_signal() {
    let dir = TempDir::new().unwrap();
    let (mut monitor, _pipe) = boot_with_full_stderr(&dir, &[]);
    monitor.expect("ready\n", DEADLINE);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn log_file_that_is_a_pipe_without_a_reader_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = fifo(&dir);
    let mut monitor = boot("echo").args(["--log-file".as_ref(), path.as_os_str()]).start();
    monitor.expect_code(USAGE, DEADLINE);
    let message = "it is a pipe without a reader; open it for reading first, as cat(1) does";
    let message = format!("error: --log-file {}: {message}\n", path.display());
    assert_eq!(monitor.stderr(), message);
}

fn log_file_has_it_instead_of_stderr() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vmm.log");
    std::fs::write(&path, "earlier\n").unwrap();
    let mut monitor =
        boot("flood-1000").args(["-v".as_ref(), "--log-file".as_ref(), path.as_os_str()]).start();
    monitor.expect_code(ENDED, DEADLINE);
    let log = std::fs::read_to_string(path).unwrap();
    assert!(log.starts_with("earlier\n") && log.contains(LINE), "{log}");
    assert_eq!(monitor.stderr(), "");
}

/// Regular files are written by a thread. At the end the user may have as many as allowed.
fn error_in_a_file_needs_no_thread_at_the_end() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("stderr");
    let script = format!("exec \"$0\" \"$@\" 2>{path:?}");
    let words = unprivileged().iter().copied().chain(["sh", "-c", &script]);
    let mut monitor = boot("halt").args(["--timeout", "3s"]).wrapped(words).start();
    monitor.expect("ready\n", DEADLINE);
    forbid_threads(&monitor);
    monitor.expect_code(TIME_IS_UP, DEADLINE);
    let error = std::fs::read_to_string(path).unwrap();
    assert!(error.starts_with("error: timed out while the guest was running\nvcpu0:\n"), "{error}");
}

fn log_of_many_sigusr1_without_metrics_has_one_line() {
    let mut monitor = boot("halt").args(["-v"]).start();
    let line = "INFO SIGUSR1 ignored: --metrics isn't set";
    monitor.expect("ready\n", DEADLINE);
    monitor.signal(Signal::SIGUSR1);
    monitor.expect_stderr(line, DEADLINE);
    // Of two signals the lower number is handled first.
    monitor.signal(Signal::SIGUSR1);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(monitor.stderr().matches(line).count(), 1, "{}", monitor.stderr());
}
