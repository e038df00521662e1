//! Flat images that are configured by flags only.

use std::time::Duration;

use driver::{DEADLINE, Launch, Monitor, Stdin};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::common::{BY_SIGTERM, CRASHED, ENDED};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        flags_reset_kernels_print_and_end_at_their_halt,
        flags_reset_hello_with_irqchip_waits_at_its_halt,
        flags_answer_of_each_mode_is_42,
        flags_answer_that_is_not_expected_shows_both_values,
        flags_debug_exit_gives_the_exit_code,
        flags_interrupts_come_with_irqchip,
        flags_interrupts_do_not_come_without_irqchip,
    ]
}

/// Launches a machine that is configured by flags only.
fn by_flags(image: &str, flags: &[&str]) -> Launch {
    let image = driver::guests::path(image);
    Monitor::command(["--flat".as_ref(), image.as_os_str()]).args(flags)
}

/// Asserts that the guest prints `text`, and that the monitor exits with `code` and prints `error`.
fn assert_flags(image: &str, flags: &[&str], text: &str, code: i32, error: &str) {
    let mut monitor = by_flags(image, flags).start();
    monitor.expect_code(code, DEADLINE);
    assert_eq!(
        (String::from_utf8_lossy(&monitor.stdout()).as_ref(), monitor.stderr().as_str()),
        (text, error)
    );
}

fn flags_reset_kernels_print_and_end_at_their_halt() {
    let flags = ["--mode", "reset", "--pseudo-serial", "0xf1"];
    assert_flags("reset-hello", &flags, "Hello", ENDED, "");
    assert_flags("reset-string", &flags, "Hello, World!", ENDED, "");
}

fn flags_reset_hello_with_irqchip_waits_at_its_halt() {
    let flags = ["--mode", "reset", "--pseudo-serial", "0xf1", "--irqchip"];
    let mut monitor = by_flags("reset-hello", &flags).start();
    monitor.expect("Hello", DEADLINE);
    monitor.expect_quiet(Duration::from_millis(200));
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn flags_answer_of_each_mode_is_42() {
    let checks = ["--debug-console", "0xe9", "--expect", "rax=42", "--expect"];
    let real = ["0x400:u16=42", "--load-address", "0x1000"];
    assert_flags("answer-real", &[&checks[..], &real].concat(), "Hello, World!", ENDED, "");
    let protected = ["0x400:u32=42", "--mode", "protected", "--entry", "0x100000"];
    assert_flags("answer-protected", &[&checks[..], &protected].concat(), "Hello, World!", ENDED, "");
    let long = ["0x400=42", "--mode", "long", "--load-address", "0x100000", "--stack", "0x7000"];
    assert_flags("answer-long", &[&checks[..], &long].concat(), "Hello, World!", ENDED, "");
}

fn flags_answer_that_is_not_expected_shows_both_values() {
    let flags = ["--mode", "long", "--debug-console", "0xe9", "--expect", "rax=43", "--expect", "0x400:u8=7"];
    let message = "error: the guest halted in an unexpected state\n\
        rax is 0x2a (42), expected 0x2b (43)\n\
        the u8 at 0x400 is 0x2a (42), expected 0x7 (7)\n";
    assert_flags("answer-long", &flags, "Hello, World!", CRASHED, message);
}

/// The guest writes 21 to its debug-exit device, which is exit code 43.
fn flags_debug_exit_gives_the_exit_code() {
    let flags = ["--cmdline", "one", "--memory", "32M", "--debug-console", "0xe9", "--debug-exit", "0xf4"];
    let mut monitor = by_flags("multiboot", &flags).start();
    monitor.expect("cmdline [multiboot.elf one]\n", DEADLINE);
    monitor.expect_code(43, DEADLINE);
}

fn flags_interrupts_come_with_irqchip() {
    let flags = ["--load-address", "0x1000", "--stack", "0x7000", "--irqchip"];
    let mut monitor = by_flags("echo-irq", &flags).stdin(Stdin::Pipe).start();
    monitor.expect("ready\n", DEADLINE);
    monitor.send(b"typed\x04");
    monitor.expect("typedbye\n", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
}

/// Its first `hlt` ends it, because nothing could wake it.
fn flags_interrupts_do_not_come_without_irqchip() {
    let flags = ["--load-address", "0x1000", "--stack", "0x7000"];
    let mut monitor = by_flags("echo-irq", &flags).stdin(Stdin::Pipe).start();
    monitor.expect("ready\n", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
}
