//! Targets of the guest's serial console.

use driver::{BULK_DEADLINE, DEADLINE, Launch, Line, Monitor, Stdin, Stdout, wait_until, wait_until_stuck};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use rustix::pipe::fcntl_setpipe_size;
use tempfile::TempDir;

use crate::linux::{ANY, BOOT_DEADLINE, BY_SIGTERM, CMDLINE, ENDED, InitUp, RAM_LEN, boot};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        output_to_file_has_inits_report,
        output_to_pty_is_a_shell,
        output_to_socket_is_a_shell,
        output_reader_stopped_memory_is_bounded_and_sigterm_ends_it,
    ]
}

fn boot_with_serial(serial: &str, cmdline: &str) -> Launch {
    boot(ANY, cmdline).args(["--serial", serial])
}

fn output_to_file_has_inits_report() {
    let dir = TempDir::new().expect("a temporary directory");
    let path = dir.path().join("console.log");
    let serial = format!("file:{}", path.display());
    let mut monitor = boot_with_serial(&serial, &format!("{CMDLINE} QUIT")).start();
    monitor.expect_code(ENDED, BOOT_DEADLINE);
    let printed = std::fs::read_to_string(path).expect("the console is text");
    let report = printed.lines().find_map(|line| line.strip_prefix("INIT-UP "));
    assert_eq!(report.map(InitUp::parse).map(|up| up.cpus), Some(1), "{printed}");
    assert_eq!(monitor.stdout(), b"");
}

/// Asserts that the other end of `line` is a guest's shell, and that the line ends with the guest.
fn assert_is_shell(mut line: Line, mut monitor: Monitor) {
    line.expect("INIT-UP ", BOOT_DEADLINE);
    line.expect("# ", DEADLINE);
    line.send(b"echo $((6*7))\r");
    line.expect("\r\n42\r\n", DEADLINE);
    line.send(b"reboot -f\r");
    line.expect_end(DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

fn output_to_pty_is_a_shell() {
    let mut monitor = boot_with_serial("pty", CMDLINE).start();
    monitor.expect("serial: ", DEADLINE);
    let name = monitor.expect("\n", DEADLINE);
    assert_is_shell(Line::attach(name).expect("the pty is there"), monitor);
}

fn output_to_socket_is_a_shell() {
    let dir = TempDir::new().expect("a temporary directory");
    let path = dir.path().join("console.sock");
    let monitor = boot_with_serial(&format!("socket:{}", path.display()), CMDLINE).start();
    let mut line = None;
    wait_until("the socket is there", DEADLINE, || {
        line = Line::connect(&path).ok();
        line.is_some()
    });
    assert_is_shell(line.expect("it was waited for"), monitor);
}

/// The guest prints endlessly and nobody reads. The pipe is small, because printing is slow in the rig; the bare-metal tests cover a
/// full queue.
fn output_reader_stopped_memory_is_bounded_and_sigterm_ends_it() {
    const PIPE_LEN: usize = 4096;
    let mut monitor = boot(ANY, CMDLINE).stdin(Stdin::Pipe).stdout(Stdout::Held).start();
    let stdout = monitor.take_stdout();
    fcntl_setpipe_size(&stdout, PIPE_LEN).expect("a pipe of one page");
    monitor.send(b"yes\n");
    wait_until_stuck(&stdout, BULK_DEADLINE);
    let dirty = monitor.own_dirty_kib(&[RAM_LEN]);
    // The program's data and its queue of 64 KiB.
    assert!(dirty < 2 << 10, "{dirty} KiB");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}
