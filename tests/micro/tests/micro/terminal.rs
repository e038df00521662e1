//! The monitor on a terminal: most keys go to the guest, a few to the monitor, and the terminal's modes are restored at the end.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use driver::{DEADLINE, Monitor, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::LocalFlags;
use nix::unistd::Pid;

use crate::common::{
    BY_SIGALRM, BY_SIGHUP, BY_SIGINT, BY_SIGQUIT, BY_SIGTERM, CRASHED, ENDED, USAGE, boot, kernel,
};
use crate::input::{expect_hash, paste};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        terminal_typed_text_is_the_guests_alone,
        terminal_arrow_keys_arrive,
        terminal_ctrl_c_arrives_as_3,
        terminal_ctrl_a_a_is_one_ctrl_a,
        terminal_ctrl_a_x_quits_and_restores_modes,
        terminal_guest_resets_modes_are_restored,
        terminal_guest_crashes_modes_are_restored,
        terminal_sigterm_restores_modes,
        terminal_sigint_restores_modes,
        terminal_sighup_restores_modes,
        terminal_sigquit_restores_modes,
        terminal_sigalrm_restores_modes,
        terminal_sigsegv_restores_modes_and_is_the_end,
        terminal_none_sigsegv_is_the_end,
        terminal_sigabrt_restores_modes_and_is_the_end,
        terminal_stopped_and_continued_is_raw_again,
        terminal_sigtstp_restores_modes_until_the_job_is_continued,
        terminal_sigtstp_that_nobody_could_undo_stops_nothing,
        terminal_of_another_job_is_refused_with_the_remedy,
        terminal_that_becomes_another_jobs_leaves_the_monitor_to_its_signals,
        terminal_that_is_another_jobs_when_the_guest_resets_is_no_end,
        terminal_sighup_that_nohup_ignores_stays_ignored,
        terminal_bad_kernel_leaves_modes_alone,
        terminal_paste_of_64_kib_arrives_whole,
        terminal_paste_of_256_kib_arrives_whole,
        terminal_ctrl_a_x_behind_what_a_deaf_guest_does_not_take_quits,
        terminal_ctrl_a_x_on_a_console_without_a_driver_quits,
        terminal_ctrl_a_x_typed_before_a_silent_guest_starts_quits,
        terminal_paste_to_a_deaf_guest_is_lost_and_told_and_ctrl_a_x_quits,
        terminal_paste_of_64_kib_while_guest_prints_arrives_whole,
        terminal_ctrl_a_h_lists_the_keys_and_s_shows_the_status,
        terminal_ctrl_a_b_on_a_guest_that_does_not_listen_is_told,
    ]
}

/// Boots a guest on a terminal and waits until it is ready; the terminal is raw then.
fn boot_on_terminal(guest: &str) -> Monitor {
    let mut monitor = boot(guest).on_terminal().start();
    monitor.expect("ready\n", DEADLINE);
    assert!(
        !monitor.termios().local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    );
    monitor
}

/// Asserts that the program exits with `code` and that its terminal's modes are restored.
fn assert_restored(mut monitor: Monitor, code: i32) {
    monitor.expect_code(code, DEADLINE);
    assert_eq!(monitor.termios(), monitor.termios_before());
}

fn terminal_typed_text_is_the_guests_alone() {
    let mut monitor = boot_on_terminal("echo");
    monitor.send(b"one\rtwo\x04");
    assert_eq!(monitor.expect("bye\n", DEADLINE), "one\rtwo", "once each, by the guest");
    assert_restored(monitor, ENDED);
}

fn terminal_arrow_keys_arrive() {
    let mut monitor = boot_on_terminal("echo");
    monitor.send(b"\x1b[A\x1b[B\x1b[C\x1b[D|");
    assert_eq!(monitor.expect("|", DEADLINE), "\x1b[A\x1b[B\x1b[C\x1b[D");
}

fn terminal_ctrl_c_arrives_as_3() {
    let mut monitor = boot_on_terminal("echo");
    // Including the keys that stop, suspend and kill a program on a terminal that isn't raw.
    monitor.send(b"\x03\x13\x11\x1a\x1c|");
    assert_eq!(monitor.expect("|", DEADLINE), "\x03\x13\x11\x1a\x1c");
}

fn terminal_ctrl_a_a_is_one_ctrl_a() {
    let mut monitor = boot_on_terminal("echo");
    monitor.send(b"<\x01a>");
    assert_eq!(monitor.expect(">", DEADLINE), "<\x01");
}

fn terminal_ctrl_a_x_quits_and_restores_modes() {
    let mut monitor = boot_on_terminal("echo");
    monitor.send(b"\x01x");
    assert_restored(monitor, ENDED);
}

fn terminal_guest_resets_modes_are_restored() {
    let mut monitor = boot_on_terminal("echo");
    monitor.send(b"\x04");
    assert_restored(monitor, ENDED);
}

fn terminal_guest_crashes_modes_are_restored() {
    let mut monitor = boot_on_terminal("crash");
    monitor.send(b"t");
    assert_restored(monitor, CRASHED);
}

fn terminal_sigterm_restores_modes() {
    let monitor = boot_on_terminal("echo");
    monitor.signal(Signal::SIGTERM);
    assert_restored(monitor, BY_SIGTERM);
}

fn terminal_sigint_restores_modes() {
    let monitor = boot_on_terminal("echo");
    monitor.signal(Signal::SIGINT);
    assert_restored(monitor, BY_SIGINT);
}

fn terminal_sighup_restores_modes() {
    let monitor = boot_on_terminal("echo");
    monitor.signal(Signal::SIGHUP);
    assert_restored(monitor, BY_SIGHUP);
}

fn terminal_sigquit_restores_modes() {
    let monitor = boot_on_terminal("echo");
    monitor.signal(Signal::SIGQUIT);
    assert_restored(monitor, BY_SIGQUIT);
}

fn terminal_sigalrm_restores_modes() {
    let monitor = boot_on_terminal("echo");
    monitor.signal(Signal::SIGALRM);
    assert_restored(monitor, BY_SIGALRM);
}

/// A signal by which the kernel or the C library reports a bug: the process dies of it, with a core dump.
fn assert_dies_of(signal: Signal) {
    let mut monitor = boot_on_terminal("echo");
    monitor.signal(signal);
    assert_eq!(monitor.expect_exit(DEADLINE).signal(), Some(signal as i32));
    assert_eq!(monitor.termios(), monitor.termios_before());
}

fn terminal_sigsegv_restores_modes_and_is_the_end() {
    assert_dies_of(Signal::SIGSEGV);
}

/// Without a terminal too.
fn terminal_none_sigsegv_is_the_end() {
    let mut monitor = boot("halt").start();
    monitor.expect("ready\n", DEADLINE);
    monitor.signal(Signal::SIGSEGV);
    assert_eq!(monitor.expect_exit(DEADLINE).signal(), Some(Signal::SIGSEGV as i32));
}

fn terminal_sigabrt_restores_modes_and_is_the_end() {
    assert_dies_of(Signal::SIGABRT);
}

fn terminal_stopped_and_continued_is_raw_again() {
    let mut monitor = boot_on_terminal("echo");
    let raw = monitor.termios();
    monitor.signal(Signal::SIGSTOP);
    monitor.set_termios(&monitor.termios_before());
    monitor.signal(Signal::SIGCONT);
    wait_until("the terminal is raw again", DEADLINE, || monitor.termios() == raw);
    monitor.send(b"\x01x");
    assert_restored(monitor, ENDED);
}

/// The shell, dash, leaves the modes alone.
fn terminal_sigtstp_restores_modes_until_the_job_is_continued() {
    let shell = r#""$0" "$@"; echo "stopped $?"; read go; fg; echo "ended $?""#;
    let mut monitor =
        boot("echo").wrapped(["setsid", "--ctty", "sh", "-m", "-c", shell]).on_terminal().start();
    monitor.expect("ready\n", DEADLINE);
    let raw = monitor.termios();
    assert_ne!(raw, monitor.termios_before());
    let job = only_child(&monitor);
    // These don't stop it: a background job must handle the signal that ends it.
    kill(job, Signal::SIGTTIN).unwrap();
    kill(job, Signal::SIGTTOU).unwrap();
    monitor.send(b"not stopped|");
    monitor.expect("not stopped|", DEADLINE);
    kill(job, Signal::SIGTSTP).unwrap();
    // 128 + SIGTSTP.
    monitor.expect("stopped 148", DEADLINE);
    assert_eq!(monitor.termios(), monitor.termios_before());
    monitor.send(b"go\n");
    wait_until("the terminal is raw again", DEADLINE, || monitor.termios() == raw);
    monitor.send(b"again|");
    monitor.expect("again|", DEADLINE);
    monitor.send(b"\x04");
    monitor.expect("ended 0", DEADLINE);
    assert_restored(monitor, 0);
}

/// Its process group is orphaned, so the kernel doesn't stop it.
fn terminal_sigtstp_that_nobody_could_undo_stops_nothing() {
    let mut monitor = boot("echo").wrapped(["setsid", "--ctty"]).on_terminal().start();
    monitor.expect("ready\n", DEADLINE);
    let raw = monitor.termios();
    monitor.signal(Signal::SIGTSTP);
    monitor.send(b"still here|");
    monitor.expect("still here|", DEADLINE);
    wait_until("the terminal is raw again", DEADLINE, || monitor.termios() == raw);
    monitor.send(b"\x04");
    assert_restored(monitor, ENDED);
}

/// The process that a shell has started as its job.
fn only_child(shell: &Monitor) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", shell.pid());
    std::fs::read_to_string(children).unwrap().trim().parse().map(Pid::from_raw).unwrap()
}

/// A background job of a shell with job control: reading from the terminal would stop the monitor without a message.
fn terminal_of_another_job_is_refused_with_the_remedy() {
    let shell = ["setsid", "--ctty", "sh", "-m", "-c", r#""$0" "$@" & wait $!"#];
    let mut monitor = boot("echo").wrapped(shell).on_terminal().start();
    monitor.expect_code(USAGE, DEADLINE);
    let said = monitor.stderr();
    assert!(
        said.contains(
            "start it in the foreground, select another console with --serial pty, or redirect standard input"
        ),
        "{said}"
    );
    assert!(said.contains("with </dev/null"), "{said}");
}

/// The shell has stopped the job and continued it in the background, and a user types: reading from the terminal would stop the monitor
/// again, before it handles the signal that ends it.
fn terminal_that_becomes_another_jobs_leaves_the_monitor_to_its_signals() {
    let shell = r#""$0" "$@"; bg; echo in the background; wait %1; echo "ended $?""#;
    let mut monitor =
        boot("echo").wrapped(["setsid", "--ctty", "sh", "-m", "-c", shell]).on_terminal().start();
    monitor.expect("ready\n", DEADLINE);
    let job = only_child(&monitor);
    kill(job, Signal::SIGSTOP).unwrap();
    monitor.expect("in the background", DEADLINE);
    monitor.send(b"typed\r");
    // The monitor checks the terminal ten times a second.
    monitor.expect_quiet(Duration::from_millis(500));
    kill(job, Signal::SIGTERM).unwrap();
    monitor.expect("ended 143", DEADLINE);
}

/// A guest that prints its lines and resets, repeatedly, in a background job.
fn terminal_that_is_another_jobs_when_the_guest_resets_is_no_end() {
    let dir = tempfile::tempdir().unwrap();
    let boot = format!(r#"{{"kernel": "{}"}}"#, kernel("flood-1000"));
    let config = format!(r#"{{"boot": {boot}, "memory": {{"size": "32M"}}, "on_reboot": "restart"}}"#);
    std::fs::write(dir.path().join("vm.json"), config).unwrap();
    let shell = r#""$0" "$@"; bg; echo in the background; wait %1; echo "ended $?""#;
    let monitor = Monitor::command(["--config", "vm.json"]).dir(dir.path());
    let mut monitor = monitor.wrapped(["setsid", "--ctty", "sh", "-m", "-c", shell]).on_terminal().start();
    let first_line = "00000000";
    monitor.expect(first_line, DEADLINE);
    let job = only_child(&monitor);
    kill(job, Signal::SIGSTOP).unwrap();
    monitor.expect("in the background", DEADLINE);
    // Each is the first line of a start, and the last of these starts was in the background.
    monitor.expect(first_line, DEADLINE);
    monitor.expect(first_line, DEADLINE);
    kill(job, Signal::SIGTERM).unwrap();
    monitor.expect("ended 143", DEADLINE);
}

fn terminal_sighup_that_nohup_ignores_stays_ignored() {
    let shell = ["sh", "-c", r#"trap "" HUP; exec "$0" "$@""#];
    let mut monitor = boot("echo").wrapped(shell).on_terminal().start();
    monitor.expect("ready\n", DEADLINE);
    monitor.signal(Signal::SIGHUP);
    monitor.send(b"still here|");
    assert_eq!(monitor.expect("|", DEADLINE), "still here");
    monitor.signal(Signal::SIGTERM);
    assert_restored(monitor, BY_SIGTERM);
}

fn terminal_bad_kernel_leaves_modes_alone() {
    let monitor = Monitor::command(["--kernel", "/dev/null", "--memory", "32M"]).on_terminal().start();
    assert_restored(monitor, crate::common::BAD_CONFIG);
}

fn terminal_paste_of_64_kib_arrives_whole() {
    let mut monitor = boot_on_terminal("hash-64k");
    monitor.send(&paste());
    expect_hash(&mut monitor, &paste());
    assert_restored(monitor, ENDED);
}

/// More than Linux buffers of a terminal's input.
fn terminal_paste_of_256_kib_arrives_whole() {
    let mut monitor = boot_on_terminal("hash-256k");
    let pasted = paste().repeat(4);
    monitor.send(&pasted);
    expect_hash(&mut monitor, &pasted);
    assert_restored(monitor, ENDED);
}

fn terminal_ctrl_a_x_behind_what_a_deaf_guest_does_not_take_quits() {
    let mut monitor = boot_on_terminal("halt");
    // More than the UART's FIFO of 64 bytes.
    monitor.send(&[b'x'; 100]);
    monitor.send(b"\x01x");
    assert_restored(monitor, ENDED);
}

fn terminal_ctrl_a_x_on_a_console_without_a_driver_quits() {
    let dir = tempfile::TempDir::new().unwrap();
    let boot = format!(r#"{{"kernel": "{}"}}"#, crate::common::kernel("halt"));
    let devices = r#"[{"type": "console", "target": "stdio"}]"#;
    let config =
        format!(r#"{{"boot": {boot}, "memory": {{"size": "32M"}}, "serial": "none", "devices": {devices}}}"#);
    std::fs::write(dir.path().join("vm.json"), config).unwrap();
    let monitor = Monitor::command(["--config", "vm.json"]).dir(dir.path()).on_terminal().start();
    let is_raw = || !monitor.termios().local_flags.contains(LocalFlags::ICANON);
    wait_until("the terminal is raw", DEADLINE, is_raw);
    let mut monitor = monitor;
    monitor.send(b"nobody takes this\x01x");
    assert_restored(monitor, ENDED);
}

/// No other event ever wakes the event loop.
fn terminal_ctrl_a_x_typed_before_a_silent_guest_starts_quits() {
    let image = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(image.path(), b"\xeb\xfe").unwrap();
    let flags = ["--flat".as_ref(), image.path().as_os_str(), "--mode".as_ref(), "real".as_ref()];
    // The shell reads the first line, and leaves the rest in the terminal.
    let wait = ["sh", "-c", r#"read go; exec "$0" "$@""#];
    let mut monitor = Monitor::command(flags).wrapped(wait).on_terminal().start();
    monitor.send(b"go\n\x01x");
    assert_restored(monitor, ENDED);
}

fn terminal_paste_to_a_deaf_guest_is_lost_and_told_and_ctrl_a_x_quits() {
    let mut monitor = boot_on_terminal("halt");
    // More than the monitor keeps for the guest.
    monitor.send(&vec![b'x'; 4200 << 10]);
    monitor.expect("[the guest reads its input too slowly; further input is lost, Ctrl-A x quits]", DEADLINE);
    monitor.send(b"\x01x");
    assert_restored(monitor, ENDED);
}

fn terminal_paste_of_64_kib_while_guest_prints_arrives_whole() {
    let mut monitor = boot_on_terminal("hash-64k-chatty");
    monitor.send(&paste());
    expect_hash(&mut monitor, &paste());
    assert_restored(monitor, ENDED);
}

/// The monitor's messages appear between the guest's output, and no input is lost.
fn terminal_ctrl_a_h_lists_the_keys_and_s_shows_the_status() {
    let mut monitor = boot_on_terminal("echo");
    monitor.send(b"\x11\x01h\x12\x01s\x13");
    monitor.expect("\r\n[Ctrl-A x quits, Ctrl-A b presses the power button, ", DEADLINE);
    monitor.expect("\r\n[1 vCPU, 32 MiB of memory, up ", DEADLINE);
    monitor.expect(" s]\r\n", DEADLINE);
    monitor.send(b"\x04");
    monitor.expect_code(ENDED, DEADLINE);
    let echoed: Vec<u8> = monitor.stdout().into_iter().filter(|byte| (0x11..=0x13).contains(byte)).collect();
    assert_eq!(echoed, b"\x11\x12\x13");
}

fn terminal_ctrl_a_b_on_a_guest_that_does_not_listen_is_told() {
    let mut monitor = boot_on_terminal("echo");
    monitor.send(b"\x01b");
    monitor.expect("\r\n[the guest doesn't listen to the power button]\r\n", DEADLINE);
    monitor.send(b"\x04");
    monitor.expect_code(ENDED, DEADLINE);
}
