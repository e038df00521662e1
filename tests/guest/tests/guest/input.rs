//! The guest's console without a terminal: from pipes, files and nothing.

use std::time::{Duration, Instant};

use driver::{DEADLINE, Launch, Monitor, Stdin};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use crate::harness::trials;
use crate::linux::{ANY, BY_SIGTERM, CMDLINE, ENDED, RAM_LEN, boot};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        input_pipe_of_commands_runs_them_and_guest_goes_on,
        input_file_of_commands_runs_them_to_its_reboot,
        input_closed_guest_goes_on,
        input_flood_takes_no_memory_whether_linux_drops_it_or_is_deaf,
    ]
}

/// The guest is there and neither ends nor prints, until SIGTERM ends the monitor.
fn assert_goes_on(mut monitor: Monitor) {
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

/// Linux takes what nobody reads and drops it, as fast as the UART gives it. Once it has halted it takes nothing.
fn input_flood_takes_no_memory_whether_linux_drops_it_or_is_deaf() {
    const FLOOD_TIME: Duration = Duration::from_secs(3);
    let flood = vec![b'x'; 100 << 20];
    let mut shell = Shell::boot(boot_with(Stdin::Pipe)).mute();
    let monitor = &mut shell.monitor;
    monitor.send(b"sleep 6; halt -f\n");
    let before = monitor.own_rss_kib(&[RAM_LEN]);

    let until = Instant::now() + FLOOD_TIME;
    let mut taken = 0;
    while Instant::now() < until {
        taken += monitor.offer(&flood[..4096], FLOOD_TIME);
    }
    // More than waits in a pipe.
    assert!(taken > 64 << 10, "{taken} bytes");

    monitor.expect("reboot: System halted", DEADLINE);
    let taken = monitor.offer(&flood, Duration::from_secs(1));
    assert!(taken < 1 << 20, "{taken} bytes of input went somewhere");
    let grown = monitor.own_rss_kib(&[RAM_LEN]).saturating_sub(before);
    // A page here and there that is touched for the first time.
    assert!(grown <= 128, "{grown} KiB more than before");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}
