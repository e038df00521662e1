//! Pausing a machine with Ctrl-A p, and resuming it.

use std::time::Duration;

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::common::{BY_SIGTERM, ENDED, TIME_IS_UP, USAGE, boot};
use crate::input::{expect_hash, paste};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        paused_machine_takes_no_input_until_it_goes_on,
        paused_machine_uses_no_processor_time,
        paused_machine_is_shown_in_the_status,
        paused_machine_is_ended_by_sigterm,
        paused_machine_is_ended_by_its_timeout,
        paused_machine_quits,
        machine_that_is_not_started_waits_for_its_key,
        machine_that_nobody_could_start_is_refused,
        machine_paused_a_hundred_times_loses_no_input_and_no_output,
    ]
}

const PAUSED: &str = "[paused; Ctrl-A p resumes]";
const RESUMED: &str = "[resumed]";

fn on_terminal(guest: &str, flags: &[&str]) -> Monitor {
    let mut monitor = boot(guest).args(flags).on_terminal().start();
    monitor.expect("ready\n", DEADLINE);
    monitor
}

#[track_caller]
fn pause(monitor: &mut Monitor) {
    monitor.send(b"\x01p");
    monitor.expect(PAUSED, DEADLINE);
}

fn paused(guest: &str) -> Monitor {
    let mut monitor = on_terminal(guest, &[]);
    pause(&mut monitor);
    monitor
}

fn paused_machine_takes_no_input_until_it_goes_on() {
    let mut monitor = paused("echo");
    monitor.send(b"<abc>");
    monitor.expect_quiet(Duration::from_millis(300));
    monitor.send(b"\x01p");
    monitor.expect(RESUMED, DEADLINE);
    monitor.expect("<abc>", DEADLINE);
    monitor.send(b"\x04");
    monitor.expect_code(ENDED, DEADLINE);
}

/// The guest prints endlessly.
fn paused_machine_uses_no_processor_time() {
    let mut monitor = boot("flood").on_terminal().start();
    pause(&mut monitor);
    // Output from before the pause.
    monitor.expect("\n", DEADLINE);
    let before = monitor.cpu_time();
    monitor.expect_quiet(Duration::from_secs(1));
    let used = monitor.cpu_time() - before;
    assert!(used <= Duration::from_millis(50), "{used:?} in a second");
    monitor.send(b"\x01x");
    monitor.expect_code(ENDED, DEADLINE);
}

fn paused_machine_is_shown_in_the_status() {
    let mut monitor = paused("echo");
    monitor.send(b"\x01s");
    monitor.expect(" s, paused]", DEADLINE);
    monitor.send(b"\x01p\x01s");
    monitor.expect(" s]", DEADLINE);
}

/// A paused guest can't shut down, so the power button isn't pressed.
fn paused_machine_is_ended_by_sigterm() {
    let mut monitor = paused("echo");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(monitor.termios(), monitor.termios_before());
}

fn paused_machine_is_ended_by_its_timeout() {
    let mut monitor = on_terminal("echo", &["--timeout", "3s"]);
    pause(&mut monitor);
    monitor.expect_code(TIME_IS_UP, DEADLINE);
    assert_eq!(monitor.termios(), monitor.termios_before());
}

fn paused_machine_quits() {
    let mut monitor = paused("halt");
    monitor.send(b"\x01x");
    monitor.expect_code(ENDED, DEADLINE);
}

fn machine_that_is_not_started_waits_for_its_key() {
    let mut monitor = boot("echo").args(["--paused"]).on_terminal().start();
    monitor.expect("[not started; Ctrl-A p starts the guest]", DEADLINE);
    monitor.send(b"\x01s");
    monitor.expect(" s, not started]", DEADLINE);
    monitor.expect_quiet(Duration::from_millis(300));
    monitor.send(b"\x01p");
    monitor.expect("[started]", DEADLINE);
    monitor.expect("ready\n", DEADLINE);
    pause(&mut monitor);
    monitor.send(b"\x01p\x04");
    monitor.expect(RESUMED, DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
}

fn machine_that_nobody_could_start_is_refused() {
    let mut monitor = boot("echo").args(["--paused"]).start();
    monitor.expect_code(USAGE, DEADLINE);
    assert_eq!(
        monitor.stderr(),
        "error: --paused: Ctrl-A p starts the guest, but its console isn't on a terminal; remove --paused, or run it on a terminal\n"
    );
}

/// Each time while input is being typed and the guest prints.
fn machine_paused_a_hundred_times_loses_no_input_and_no_output() {
    let mut monitor = on_terminal("hash-64k", &[]);
    let paste = paste();
    paste.chunks(paste.len().div_ceil(100)).for_each(|chunk| {
        monitor.send(chunk);
        pause(&mut monitor);
        monitor.send(b"\x01p");
        monitor.expect(RESUMED, DEADLINE);
    });
    expect_hash(&mut monitor, &paste);
}
