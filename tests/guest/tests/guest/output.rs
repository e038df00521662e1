//! Where the guest's console goes.

use driver::{DEADLINE, Launch, Line, Monitor, wait_until};
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::harness::trials;
use crate::linux::{ANY, BOOT_DEADLINE, CMDLINE, ENDED, InitUp, boot};

pub(crate) fn tests() -> Vec<Trial> {
    trials![output_to_file_has_inits_report, output_to_pty_is_a_shell, output_to_socket_is_a_shell,]
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
