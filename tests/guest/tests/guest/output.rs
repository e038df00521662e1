//! Where the guest's console goes.

use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use driver::{DEADLINE, Launch, Line, Monitor, Stdin, Stdout, wait_until};
use libtest_mimic::Trial;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::trials;
use crate::linux::{ANY, BOOT_DEADLINE, BY_SIGTERM, CMDLINE, ENDED, InitUp, RAM_LEN, boot};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        output_reader_stopped_while_linux_prints_sigterm_ends_monitor,
        output_to_file_has_inits_report,
        output_to_pty_is_a_shell,
        output_to_socket_is_a_shell,
    ]
}

/// The end of a signalled monitor takes its threads' end and a machine's: milliseconds.
const IN_TIME: Duration = Duration::from_secs(5);

fn output_reader_stopped_while_linux_prints_sigterm_ends_monitor() {
    let mut monitor = boot(ANY, CMDLINE).stdin(Stdin::Pipe).stdout(Stdout::Held).start();
    let stdout = monitor.take_stdout();
    // The console is open: Linux takes input. What it prints from here on stays in the pipe.
    read_until(&stdout, "INIT-UP");
    monitor.send(b"\nyes\n");
    wait_until_held(&monitor);
    let resident = monitor.own_rss_kib(&[RAM_LEN]);
    // The program itself and its queue of 64 KiB.
    assert!(resident < 8 << 10, "{resident} KiB");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, IN_TIME);
}

/// Reads up to and with `word`.
fn read_until(mut stdout: &PipeReader, word: &str) {
    let until = Instant::now() + BOOT_DEADLINE;
    let mut heard = Vec::new();
    while !heard.ends_with(word.as_bytes()) {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).expect("minutes fit");
        let ready = poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout);
        assert_eq!(ready, Ok(1), "no {word:?}, only {:?}", heard.escape_ascii().to_string());
        let mut byte = [0];
        stdout.read_exact(&mut byte).expect("the monitor runs");
        heard.extend(byte);
    }
}

/// Waits until the guest is held because nobody reads: the monitor uses no processor time any more, as it does while Linux
/// boots.
fn wait_until_held(monitor: &Monitor) {
    let mut last = Duration::ZERO;
    let mut same = 0;
    wait_until("the guest is held", BOOT_DEADLINE, || {
        let now = monitor.cpu_time();
        same = if now == last && now > Duration::ZERO { same + 1 } else { 0 };
        last = now;
        // Looked at every 5 ms: nothing in half a second.
        same >= 100
    });
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

/// A line with a guest's shell at the other end, which ends with the guest.
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
