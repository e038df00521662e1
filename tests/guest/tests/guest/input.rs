//! The guest's console without a terminal: input from pipes, files and /dev/null.

use std::time::Duration;

use driver::{BULK_DEADLINE, DEADLINE, Launch, Monitor, Stdin, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use crate::linux::{ANY, BY_SIGTERM, CMDLINE, ENDED, RAM_LEN, boot};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        input_pipe_of_commands_runs_them_and_guest_goes_on,
        input_file_of_commands_runs_them_to_its_reboot,
        input_closed_guest_goes_on,
        input_flood_of_100_mb_to_guest_that_does_not_read_takes_no_memory,
    ]
}

/// Asserts that the guest keeps running and prints nothing until SIGTERM ends the monitor. After its prompt the shell queries the
/// cursor position.
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

/// The whole file is available before Linux runs, so the input must wait.
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

/// No program in the guest reads. Linux's driver reads and discards the input at its own pace.
fn input_flood_of_100_mb_to_guest_that_does_not_read_takes_no_memory() {
    /// More than a pipe, 64 KiB, and Linux's buffer for programs that read later, 4 KiB, hold together.
    const BEYOND_ALL_BUFFERS: usize = 80 << 10;
    let mut shell = Shell::boot(boot_with(Stdin::Pipe)).mute();
    shell.monitor.send(b"echo be\"\"gin; sleep 1000\n");
    shell.monitor.expect("begin\r\n", DEADLINE);
    let before = shell.monitor.own_dirty_kib(&[RAM_LEN]);
    let flood = vec![b'x'; 100 << 20];
    let mut taken = 0;
    wait_until("the guest is given more than anybody keeps", BULK_DEADLINE, || {
        // In pieces, because all of it would take minutes even with a fast guest.
        taken += shell.monitor.offer(&flood[taken..][..4096], Duration::from_millis(500));
        taken > BEYOND_ALL_BUFFERS
    });
    let grown = shell.monitor.own_dirty_kib(&[RAM_LEN]).saturating_sub(before);
    // Some pages are touched for the first time.
    assert!(grown <= 128, "{grown} KiB more than before, for {taken} bytes of input");
    shell.monitor.signal(Signal::SIGTERM);
    shell.monitor.expect_code(BY_SIGTERM, DEADLINE);
}
