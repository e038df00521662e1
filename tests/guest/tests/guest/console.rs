//! The virtio console with the driver of a stock kernel.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use driver::{BULK_DEADLINE, DEADLINE, Launch, Line, Monitor, Stdin, Stdout, wait_until, wait_until_stuck};
use harness::trials;
use libtest_mimic::Trial;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use rustix::pipe::fcntl_setpipe_size;
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::TempDir;

use crate::initrd::{CMDLINE, initrd_with};
use crate::linux::{ANY, BOOT_DEADLINE, BY_SIGTERM, ENDED, RAM_LEN, image_path};
use crate::paste::{lines_of_64_kib, md5};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        console_on_a_pty_loses_nothing,
        console_on_the_terminal_has_its_keys_and_its_size,
        console_reader_stopped_memory_is_bounded_and_sigterm_ends_it,
    ]
}

/// A command for the guest that loads the driver and starts a shell on its console. `setsid` starts it in a new session and returns;
/// if it were a background job, its end would interrupt the serial shell's read, which that would take for the end of its input.
const SHELL_ON_HVC0: &str = "sh /modules/load; setsid sh -c 'exec sh </dev/hvc0 >/dev/hvc0 2>&1'";

/// The monitor with this config in `dir`, and a guest that has the driver.
fn launch(dir: &Path, config: &str) -> Launch {
    let initrd = initrd_with(&["virtio_pci", "virtio_console"]);
    let [config_path, initrd_path] = ["vm.json", "initrd"].map(|name| dir.join(name));
    std::fs::write(&config_path, config).expect("room for a config");
    std::fs::copy(initrd.path(), &initrd_path).expect("room for an initramfs");
    Monitor::command(["--memory", "256M", "--cmdline", CMDLINE])
        .args(["--kernel".into(), image_path(ANY), "--initrd".into(), initrd_path])
        .args(["--config".into(), config_path])
}

fn temporary() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

/// Connects to the guest's shell on the serial console, and waits for its prompt.
fn serial_shell(dir: &Path) -> Line {
    let mut line = None;
    wait_until("the socket is there", DEADLINE, || {
        line = Line::connect(&dir.join("serial")).ok();
        line.is_some()
    });
    let mut line = line.expect("it was waited for");
    line.expect("INIT-UP ", BOOT_DEADLINE);
    line.expect("# ", DEADLINE);
    line
}

fn console_on_a_pty_loses_nothing() {
    const LEN: usize = 1 << 20;
    let dir = temporary();
    let mut monitor = launch(dir.path(), r#"{"devices": [{"type": "console"}]}"#).on_terminal().start();
    monitor.expect("console0: ", DEADLINE);
    let pty = monitor.expect("\r\n", DEADLINE);
    let mut shell = Shell::at(monitor).mute();
    let mut console = Line::attach(pty).expect("the pty is there");
    shell.run(SHELL_ON_HVC0);
    console.expect("# ", DEADLINE);
    console.send(b"stty -echo\n");
    console.expect("stty -echo", DEADLINE);
    console.expect("# ", DEADLINE);

    console.send(b"echo $((6*7))\n");
    console.expect("42\r\n", DEADLINE);

    let text = lines_of_64_kib();
    console.send(b"cat >/tmp/f; echo pasted\n");
    console.send(text.as_bytes());
    console.send(b"\x04");
    console.expect("pasted\r\n", BULK_DEADLINE);
    assert_eq!(shell.run("md5sum </tmp/f"), format!("{}  -\n", md5(&text)));

    console.send(format!("echo be\"\"gin; head -c {LEN} /dev/zero | tr '\\0' x; echo end\n").as_bytes());
    console.expect("begin\r\n", DEADLINE);
    let printed = console.expect("end\r\n", 2 * BULK_DEADLINE);
    assert_eq!(printed.bytes().filter(|byte| *byte == b'x').count(), LEN);
    assert_eq!(printed.len(), LEN);
    shell.reboot();
}

/// Sets the size of the monitor's terminal, as a terminal emulator does when its window is resized.
fn resize(monitor: &Monitor, rows: u16, columns: u16) {
    let path = format!("/proc/{}/fd/0", monitor.pid());
    let terminal = File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(path);
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal.expect("the monitor is on a terminal"), size).expect("a terminal has a size");
}

fn console_on_the_terminal_has_its_keys_and_its_size() {
    let dir = temporary();
    let config = r#"{"serial": {"socket": "serial"}, "devices": [{"type": "console", "target": "stdio"}]}"#;
    // It must be the controlling terminal, as under a shell, for the kernel to send SIGWINCH.
    let mut monitor = launch(dir.path(), config).on_terminal().wrapped(["setsid", "--ctty"]).start();
    let mut serial = serial_shell(dir.path());
    resize(&monitor, 40, 132);
    serial.send(format!("{SHELL_ON_HVC0}\n").as_bytes());
    monitor.expect("# ", DEADLINE);
    assert_ne!(monitor.termios(), monitor.termios_before(), "the terminal is raw");

    monitor.send(b"until [ \"$(stty size)\" = '40 132' ]; do :; done; echo fir\"\"st\n");
    monitor.expect("first\r\n", DEADLINE);
    resize(&monitor, 25, 80);
    monitor.send(b"until [ \"$(stty size)\" = '25 80' ]; do :; done; echo sec\"\"ond\n");
    monitor.expect("second\r\n", DEADLINE);

    monitor.send(b"\x01s");
    monitor.expect("1 vCPU, 256 MiB", DEADLINE);
    monitor.send(b"echo $((6*7))\n");
    monitor.expect("42\r\n", DEADLINE);
    monitor.send(b"\x01x");
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.termios(), monitor.termios_before());
}

/// As with the serial console, output that nobody reads stays in the guest.
fn console_reader_stopped_memory_is_bounded_and_sigterm_ends_it() {
    const PIPE_LEN: usize = 4096;
    let dir = temporary();
    let config = r#"{"serial": {"socket": "serial"}, "devices": [{"type": "console", "target": "stdio"}]}"#;
    let mut monitor = launch(dir.path(), config).stdin(Stdin::Pipe).stdout(Stdout::Held).start();
    let stdout = monitor.take_stdout();
    fcntl_setpipe_size(&stdout, PIPE_LEN).expect("a pipe of one page");
    let mut serial = serial_shell(dir.path());
    serial.send(b"sh /modules/load; yes >/dev/hvc0\n");
    wait_until_stuck(&stdout, BULK_DEADLINE);
    let dirty = monitor.own_dirty_kib(&[RAM_LEN]);
    // The program's data and its queues of 64 KiB.
    assert!(dirty < 2 << 10, "{dirty} KiB");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}
