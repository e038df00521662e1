//! The monitor on a terminal: keys go to the guest, a few to the monitor, and the terminal is as it was afterwards.

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use nix::sys::termios::LocalFlags;

use crate::common::{BY_SIGHUP, BY_SIGINT, BY_SIGTERM, CRASHED, ENDED, boot};
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
        terminal_bad_kernel_leaves_modes_alone,
        terminal_paste_of_64_kib_arrives_whole,
        terminal_paste_of_64_kib_while_guest_prints_arrives_whole,
        terminal_ctrl_a_h_lists_the_keys_and_s_shows_the_status,
        terminal_ctrl_a_b_on_a_guest_that_does_not_listen_is_told,
    ]
}

/// A guest that says it is ready, on a terminal that is raw now.
fn boot_on_terminal(guest: &str) -> Monitor {
    let mut monitor = boot(guest).on_terminal().start();
    monitor.expect("ready\n", DEADLINE);
    assert!(
        !monitor.termios().local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    );
    monitor
}

/// The program ends with `code`, and no mode of its terminal is another than before.
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
    // With those that stop, suspend and kill a program on a terminal that isn't raw.
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

fn terminal_paste_of_64_kib_while_guest_prints_arrives_whole() {
    let mut monitor = boot_on_terminal("hash-64k-chatty");
    monitor.send(&paste());
    expect_hash(&mut monitor, &paste());
    assert_restored(monitor, ENDED);
}

/// What the monitor says stands between what the guest says, and nothing that is typed is lost for it.
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
