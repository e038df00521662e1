//! The serial console with a file, a pseudo-terminal and a unix socket as its target.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use driver::{DEADLINE, Line, Monitor, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use micro_tests::flood_lines;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{BAD_CONFIG, BY_SIGTERM, ENDED, boot, kernel};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        serial_file_is_complete,
        serial_file_on_full_disk_guest_runs_to_its_end,
        serial_file_at_its_limit_is_a_full_disk,
        serial_file_outlives_a_reset,
        serial_file_on_full_disk_is_told_once_for_all_resets,
        serial_socket_client_outlives_a_reset,
        serial_pty_client_outlives_a_reset_and_the_name_is_told_once,
        serial_none_guest_runs_to_its_end,
        serial_terminal_shows_the_name_of_another_consoles_pty_on_a_line_of_its_own,
        serial_pty_clients_come_and_go,
        serial_pty_guest_ends_client_is_hung_up,
        serial_socket_clients_come_and_go,
        serial_socket_client_without_a_descriptor_costs_nothing_and_gets_one_later,
        serial_socket_half_closed_client_still_reads,
        serial_socket_client_that_leaves_at_once_is_heard,
        serial_socket_left_by_a_crash_is_taken_over,
        serial_socket_is_removed_at_exit,
        serial_socket_in_use_is_refused_and_kept,
        serial_socket_at_a_file_is_refused_and_kept,
    ]
}

fn boot_with_serial(guest: &str, serial: &str) -> Monitor {
    boot(guest).args(["--serial", serial]).start()
}

fn serial_file_is_complete() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("console.log");
    let mut monitor = boot_with_serial("flood-1000", &format!("file:{}", path.display()));
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(std::fs::read_to_string(path).unwrap(), flood_lines(1000));
    assert_eq!(monitor.stdout(), b"");
}

fn serial_file_on_full_disk_guest_runs_to_its_end() {
    let mut monitor = boot_with_serial("flood-1000", "file:/dev/full");
    monitor.expect_code(ENDED, DEADLINE);
    let said = monitor.stderr();
    let message = "serial output to /dev/full: No space left on device; what can't be written is lost";
    assert_eq!(said.matches(message).count(), 1, "{said}");
    assert!(said.contains("9000 bytes were lost"), "1000 lines of 9 bytes: {said}");
}

/// Beyond RLIMIT_FSIZE Linux sends SIGXFSZ, which kills by default.
fn serial_file_at_its_limit_is_a_full_disk() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("console.log");
    // In units of 512 bytes: fewer than 1000 lines of 9 bytes.
    let shell = ["sh", "-c", r#"ulimit -f 8; exec "$0" "$@""#];
    let serial = format!("file:{}", path.display());
    let mut monitor = boot("flood-1000").args(["--serial", &serial]).wrapped(shell).start();
    monitor.expect_code(ENDED, DEADLINE);
    assert!(
        monitor.stderr().contains("File too large; what can't be written is lost"),
        "{}",
        monitor.stderr()
    );
    assert_eq!(std::fs::read_to_string(path).unwrap(), flood_lines(1000)[..4096]);
}

/// Starts a guest that prints its lines and resets, repeatedly, with `serial` as its console.
fn restart(dir: &TempDir, guest: &str, serial: &str) -> Monitor {
    let config = format!(
        r#"{{"boot": {{"kernel": "{}"}}, "memory": {{"size": "32M"}}, "on_reboot": "restart", "serial": {serial}}}"#,
        kernel(guest)
    );
    std::fs::write(dir.path().join("vm.json"), config).unwrap();
    Monitor::command(["--config", "vm.json"]).dir(dir.path()).start()
}

fn serial_file_outlives_a_reset() {
    let dir = TempDir::new().unwrap();
    // The file of an earlier run, longer than the output of two starts.
    std::fs::write(dir.path().join("console.log"), vec![b'x'; 1 << 20]).unwrap();
    let mut monitor = restart(&dir, "flood-1000", r#"{"file": "console.log"}"#);
    let printed = || std::fs::read_to_string(dir.path().join("console.log")).unwrap_or_default();
    let twice = flood_lines(1000).repeat(2);
    wait_until("it has printed all of it twice", DEADLINE, || printed().starts_with(&twice));
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert!(!printed().contains('x'));
}

fn serial_file_on_full_disk_is_told_once_for_all_resets() {
    let dir = TempDir::new().unwrap();
    let mut monitor = restart(&dir, "flood-1000", r#"{"file": "/dev/full"}"#);
    monitor.expect_stderr("what can't be written is lost", DEADLINE);
    // Time for tens of starts; even on a slow host the first one is over.
    let starts = monitor.cpu_time() + Duration::from_secs(1);
    wait_until("it has started often", DEADLINE, || monitor.cpu_time() > starts);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    let said = monitor.stderr();
    assert_eq!(said.matches("what can't be written is lost").count(), 1, "{said}");
    assert_eq!(said.matches("bytes were lost").count(), 1, "{said}");
}

fn serial_socket_client_outlives_a_reset() {
    let dir = TempDir::new().unwrap();
    let mut monitor = restart(&dir, "echo", r#"{"socket": "console.sock"}"#);
    let path = socket_path(&dir);
    wait_until("the socket is there", DEADLINE, || path.exists());
    let mut client = Line::connect(&path).unwrap();
    client.send(b"first\x04");
    client.expect("firstbye\nready\n", DEADLINE);
    client.send(b"second");
    client.expect("second", DEADLINE);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn serial_pty_client_outlives_a_reset_and_the_name_is_told_once() {
    let dir = TempDir::new().unwrap();
    let mut monitor = restart(&dir, "echo", r#""pty""#);
    monitor.expect("serial: ", DEADLINE);
    let name = monitor.expect("\n", DEADLINE);
    let mut client = Line::attach(&name).unwrap();
    client.expect("ready\n", DEADLINE);
    client.send(b"first\x04");
    client.expect("bye\nready\n", DEADLINE);
    client.send(b"second");
    client.expect("second", DEADLINE);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(monitor.stdout(), format!("serial: {name}\n").into_bytes());
}

fn serial_none_guest_runs_to_its_end() {
    let mut monitor = boot_with_serial("flood-1000", "none");
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!((monitor.stdout(), monitor.stderr()), (vec![], String::new()));
}

/// Starts a guest with a new pseudo-terminal; returns its name, which the monitor prints.
fn boot_on_pty(guest: &str) -> (Monitor, String) {
    let mut monitor = boot_with_serial(guest, "pty");
    monitor.expect("serial: ", DEADLINE);
    let name = monitor.expect("\n", DEADLINE);
    assert!(name.starts_with("/dev/pts/"), "{name}");
    (monitor, name)
}

/// The terminal isn't raw yet.
fn serial_terminal_shows_the_name_of_another_consoles_pty_on_a_line_of_its_own() {
    let dir = tempfile::TempDir::new().unwrap();
    std::fs::write(dir.path().join("vm.json"), r#"{"devices": [{"type": "console"}]}"#).unwrap();
    let mut monitor = boot("echo").args(["--config", "vm.json"]).dir(dir.path()).on_terminal().start();
    monitor.expect("console0: /dev/pts/", DEADLINE);
    let number = monitor.expect("\r\n", DEADLINE);
    assert!(number.parse::<u32>().is_ok(), "{number:?}");
    monitor.expect("ready", DEADLINE);
    monitor.send(b"\x01x");
    monitor.expect_code(ENDED, DEADLINE);
}

fn serial_pty_clients_come_and_go() {
    let (mut monitor, name) = boot_on_pty("echo");
    let mut first = Line::attach(&name).unwrap();
    first.expect("ready\n", DEADLINE);
    first.send(b"first\x03");
    first.expect("first\x03", DEADLINE);
    drop(first);
    let mut second = Line::attach(&name).unwrap();
    second.send(b"second");
    assert_eq!(second.expect("second", DEADLINE), "", "nothing of the first one's is left");
    second.send(b"\x04");
    monitor.expect_code(ENDED, DEADLINE);
}

fn serial_pty_guest_ends_client_is_hung_up() {
    let (mut monitor, name) = boot_on_pty("echo");
    let mut client = Line::attach(&name).unwrap();
    client.expect("ready\n", DEADLINE);
    client.send(b"\x04");
    // Linux discards unread output of a pty when the other side closes it: "bye" may be lost.
    client.expect_end(DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
}

/// Starts a guest with a unix socket, and waits until that accepts clients.
fn boot_on_socket(guest: &str, path: &Path) -> Monitor {
    let monitor = boot_with_serial(guest, &format!("socket:{}", path.display()));
    wait_until("the socket is there", DEADLINE, || Line::connect(path).is_ok());
    monitor
}

fn socket_path(dir: &TempDir) -> PathBuf {
    dir.path().join("console.sock")
}

fn serial_socket_clients_come_and_go() {
    let dir = TempDir::new().unwrap();
    let mut monitor = boot_on_socket("echo", &socket_path(&dir));
    let mut first = Line::connect(&socket_path(&dir)).unwrap();
    first.send(b"first\x03");
    first.expect("first\x03", DEADLINE);
    drop(first);
    let mut second = Line::connect(&socket_path(&dir)).unwrap();
    second.send(b"second");
    assert_eq!(second.expect("second", DEADLINE), "", "nothing of the first one's is left");
    second.send(b"\x04");
    second.expect("bye\n", DEADLINE);
    second.expect_end(DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
}

/// Sets the limit of open files of a running monitor.
fn limit_descriptors(monitor: &Monitor, limit: &str) {
    crate::common::limit(monitor, &format!("--nofile={limit}:"));
}

fn serial_socket_client_without_a_descriptor_costs_nothing_and_gets_one_later() {
    let dir = TempDir::new().unwrap();
    let mut monitor = boot_on_socket("echo", &socket_path(&dir));
    let mut client = Line::connect(&socket_path(&dir)).unwrap();
    client.send(b"first|");
    client.expect("first|", DEADLINE);
    drop(client);
    limit_descriptors(&monitor, "3");
    let mut client = Line::connect(&socket_path(&dir)).unwrap();
    client.send(b"second");
    let told = "serial: can't connect a client, which waits until it can be: Too many open files (os error 24); raise the limit of open \
         files (ulimit -n)";
    monitor.expect_stderr(told, DEADLINE);
    let before = monitor.main_cpu_time();
    // Ten attempts.
    monitor.expect_quiet(Duration::from_secs(1));
    let used = monitor.main_cpu_time() - before;
    assert!(used <= Duration::from_millis(100), "{used:?} in a second");
    limit_descriptors(&monitor, "1024");
    client.expect("second", DEADLINE);
    client.send(b"\x04");
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stderr().matches("can't connect a client").count(), 1);
}

fn serial_socket_half_closed_client_still_reads() {
    let dir = TempDir::new().unwrap();
    let mut monitor = boot_on_socket("echo", &socket_path(&dir));
    let mut client = Line::connect(&socket_path(&dir)).unwrap();
    client.send(b"all at once");
    client.end_input();
    client.expect("all at once", DEADLINE);
    drop(client);
    let mut next = Line::connect(&socket_path(&dir)).unwrap();
    next.send(b"next\x04");
    next.expect("nextbye\n", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
}

fn serial_socket_client_that_leaves_at_once_is_heard() {
    let dir = TempDir::new().unwrap();
    let mut monitor = boot_on_socket("echo", &socket_path(&dir));
    // More than the UART accepts at once, and the guest prints in between.
    let mut client = Line::connect(&socket_path(&dir)).unwrap();
    client.send(&[b'x'; 1000]);
    client.send(b"\x04");
    drop(client);
    monitor.expect_code(ENDED, DEADLINE);
}

fn serial_socket_left_by_a_crash_is_taken_over() {
    let dir = TempDir::new().unwrap();
    drop(UnixListener::bind(socket_path(&dir)).unwrap());
    let mut monitor = boot_on_socket("echo", &socket_path(&dir));
    let mut client = Line::connect(&socket_path(&dir)).unwrap();
    client.send(b"\x04");
    client.expect("bye\n", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
}

fn serial_socket_is_removed_at_exit() {
    let dir = TempDir::new().unwrap();
    let mut monitor = boot_on_socket("halt", &socket_path(&dir));
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Asserts that the monitor rejects this path.
fn assert_refused(path: &Path, problem: &str) {
    let mut monitor = boot_with_serial("halt", &format!("socket:{}", path.display()));
    monitor.expect_code(BAD_CONFIG, DEADLINE);
    let message = format!("error: --serial socket {}: {problem}, or choose another path\n", path.display());
    assert_eq!(monitor.stderr(), message);
}

fn serial_socket_in_use_is_refused_and_kept() {
    let dir = TempDir::new().unwrap();
    let _other = UnixListener::bind(socket_path(&dir)).unwrap();
    assert_refused(&socket_path(&dir), "is in use by another program: stop that one");
    assert!(Line::connect(&socket_path(&dir)).is_ok());
}

fn serial_socket_at_a_file_is_refused_and_kept() {
    let dir = TempDir::new().unwrap();
    std::fs::write(socket_path(&dir), "precious").unwrap();
    assert_refused(&socket_path(&dir), "is there and is no socket: move it away");
    assert_eq!(std::fs::read_to_string(socket_path(&dir)).unwrap(), "precious");
}
