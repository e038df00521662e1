//! However a guest or the monitor ends, the exit code is correct and the terminal's modes are restored.

use std::path::Path;

use driver::DEADLINE;
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::linux::{ANY, BOOT_DEADLINE, BY_SIGHUP, BY_SIGINT, BY_SIGTERM, CMDLINE, ENDED, boot};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        ending_by_sigterm_restores_terminal,
        ending_by_sigint_restores_terminal,
        ending_by_sighup_restores_terminal,
        ending_by_ctrl_a_x_restores_terminal,
        ending_by_kernel_panic_is_told_and_resets,
    ]
}

/// Starts a guest on a terminal, calls `act` at its prompt, and asserts the exit code and that the terminal is restored.
fn assert_ends(act: impl FnOnce(&mut Shell), code: i32) {
    let mut shell = Shell::boot(boot(ANY, CMDLINE).on_terminal());
    assert_ne!(shell.monitor.termios(), shell.monitor.termios_before());
    act(&mut shell);
    shell.monitor.expect_code(code, DEADLINE);
    assert_eq!(shell.monitor.termios(), shell.monitor.termios_before());
    assert!(!Path::new(&format!("/proc/{}", shell.monitor.pid())).exists());
}

fn ending_by_sigterm_restores_terminal() {
    assert_ends(|shell| shell.monitor.signal(Signal::SIGTERM), BY_SIGTERM);
}

fn ending_by_sigint_restores_terminal() {
    assert_ends(|shell| shell.monitor.signal(Signal::SIGINT), BY_SIGINT);
}

fn ending_by_sighup_restores_terminal() {
    assert_ends(|shell| shell.monitor.signal(Signal::SIGHUP), BY_SIGHUP);
}

fn ending_by_ctrl_a_x_restores_terminal() {
    assert_ends(|shell| shell.monitor.send(b"\x01x"), ENDED);
}

/// A kernel that panics with `panic=-1` resets the machine at once, which the monitor treats like any other reset.
fn ending_by_kernel_panic_is_told_and_resets() {
    let mut shell = Shell::boot(boot(ANY, CMDLINE).on_terminal()).mute();
    shell.monitor.send(b"echo c >/proc/sysrq-trigger\n");
    shell.monitor.expect("Kernel panic - not syncing: sysrq triggered crash\r\n", DEADLINE);
    shell.monitor.expect_code(ENDED, BOOT_DEADLINE);
    assert_eq!(shell.monitor.termios(), shell.monitor.termios_before());
}
