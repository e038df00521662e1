//! The guest's output arrives completely, however slowly it is read, and a reader that stops can't harm the monitor.

use std::io::Read;
use std::time::Duration;

use driver::{BULK_DEADLINE, DEADLINE, Monitor, Stdout, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use micro_tests::flood_lines;
use nix::sys::signal::Signal;

use crate::common::{BY_SIGPIPE, BY_SIGTERM, ENDED, RAM_LEN, boot};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        output_reader_stopped_memory_is_bounded_and_sigterm_ends_it,
        output_reader_gone_exits_quietly,
        output_reader_slow_loses_nothing,
        output_file_is_complete,
        output_null_guest_runs_to_its_end,
        output_closed_guest_runs_to_its_end,
        output_of_check_into_closed_pipe_exits_quietly,
        output_closed_on_terminal_input_goes_on,
    ]
}

/// Waits until the guest is held because nobody reads: the monitor no longer uses processor time.
fn wait_until_held(monitor: &Monitor) {
    let mut last = monitor.cpu_time();
    let mut same = 0;
    wait_until("the guest is held", BULK_DEADLINE, || {
        let now = monitor.cpu_time();
        same = if now == last && now > Duration::ZERO { same + 1 } else { 0 };
        last = now;
        // Polled every 5 ms: no change for a quarter of a second.
        same >= 50
    });
}

fn output_reader_stopped_memory_is_bounded_and_sigterm_ends_it() {
    let mut monitor = boot("flood").stdout(Stdout::Held).start();
    wait_until_held(&monitor);
    let dirty = monitor.own_dirty_kib(&[RAM_LEN]);
    // The program's data and its queue of 64 KiB.
    assert!(dirty < 2 << 10, "{dirty} KiB");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn output_reader_gone_exits_quietly() {
    let mut monitor = boot("flood").stdout(Stdout::Held).start();
    let mut stdout = monitor.take_stdout();
    stdout.read_exact(&mut [0; 9]).unwrap();
    drop(stdout);
    monitor.expect_code(BY_SIGPIPE, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

/// More lines than the pipe and the monitor's queue hold together: the guest is held and continues.
fn output_reader_slow_loses_nothing() {
    let mut monitor = boot("flood-20000").stdout(Stdout::Held).start();
    let mut stdout = monitor.take_stdout();
    wait_until_held(&monitor);
    let mut all = vec![0; 1000];
    stdout.read_exact(&mut all).unwrap();
    stdout.read_to_end(&mut all).unwrap();
    assert!(all == flood_lines(20000).into_bytes(), "{} bytes, or others", all.len());
    monitor.expect_code(ENDED, DEADLINE);
}

fn output_file_is_complete() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut monitor = boot("flood-1000").stdout(Stdout::File(file.path().to_owned())).start();
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), flood_lines(1000));
}

fn output_null_guest_runs_to_its_end() {
    let mut monitor = boot("flood-1000").stdout(Stdout::Null).start();
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

fn output_closed_guest_runs_to_its_end() {
    let mut monitor = boot("flood-1000").stdout(Stdout::Closed).start();
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

fn output_of_check_into_closed_pipe_exits_quietly() {
    // The shell waits for a line, and by then the reading end is closed.
    let held = ["sh", "-c", r#"read -r line; exec "$0" "$@""#];
    let launch = boot("echo").args(["--check"]).wrapped(held).stdin(driver::Stdin::Pipe).stdout(Stdout::Held);
    let mut monitor = launch.start();
    drop(monitor.take_stdout());
    monitor.send(b"go\n");
    monitor.expect_code(BY_SIGPIPE, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

/// Only the input is a terminal; the monitor still has to restore its modes.
fn output_closed_on_terminal_input_goes_on() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let launch = boot("echo").stdin(driver::Stdin::Terminal).stdout(Stdout::File(file.path().to_owned()));
    let mut monitor = launch.start();
    let printed = || std::fs::read_to_string(file.path()).unwrap();
    wait_until("the guest is ready", DEADLINE, || printed() == "ready\n");
    monitor.send(b"typed\x04");
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(printed(), "ready\ntypedbye\n");
    assert_eq!(monitor.termios(), monitor.termios_before());
}
