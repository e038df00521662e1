//! The guest's console without a terminal: from pipes, files and nothing.

use std::time::Duration;

use driver::{DEADLINE, Launch, Monitor, Stdin};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use crate::harness::trials;
use crate::linux::{ANY, BY_SIGTERM, CMDLINE, ENDED, boot};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        input_pipe_of_commands_runs_them_and_guest_goes_on,
        input_file_of_commands_runs_them_to_its_reboot,
        input_closed_guest_goes_on,
    ]
}

/// The guest is there and neither ends nor prints, until SIGTERM ends the monitor. Behind its prompt the shell asks for
/// the position of the cursor.
fn assert_goes_on(mut monitor: Monitor) {
    monitor.expect("\x1b[6n", DEADLINE);
    monitor.expect_quiet(Duration::from_millis(500));
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

fn boot_with(stdin: Stdin) -> Launch {
    boot(ANY, CMDLINE).stdin(stdin)
}

fn input_pipe_of_commands_runs_them_and_guest_goes_on() {
    let mut shell = Shell::boot(boot_with(Stdin::Pipe));
    shell.monitor.send(b"echo $((6*7)); sleep 1; echo $((7*8))\n");
    shell.monitor.close_stdin();
    shell.monitor.expect("\r\n42\r\n56\r\n", DEADLINE);
    shell.monitor.expect("# ", DEADLINE);
    assert_goes_on(shell.monitor);
}

/// The whole file is there before Linux is: what it has to say must wait.
fn input_file_of_commands_runs_them_to_its_reboot() {
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "echo $((6*7))\nreboot -f\n").expect("room for two lines");
    let mut shell = Shell::boot(boot_with(Stdin::File(file.path().to_owned())));
    shell.monitor.expect("\r\n42\r\n", DEADLINE);
    shell.monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(shell.monitor.stderr(), "");
}

fn input_closed_guest_goes_on() {
    let shell = Shell::boot(boot_with(Stdin::Closed));
    assert_goes_on(shell.monitor);
}
