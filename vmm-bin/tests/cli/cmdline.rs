//! The kernel's command line. An argument can't contain a NUL; that case is among the config's tests.

use crate::bench::{BAD_CONFIG, Bench, DONE, USAGE, complaint};

#[test]
fn cmdline_longer_than_the_kernel_takes_is_refused() {
    let ran = Bench::new().run(&["--check", "--kernel", "kernel", "--cmdline", &"x".repeat(2048)]);
    assert_eq!(ran, complaint(BAD_CONFIG, "command line: 2048 bytes; this kernel takes at most 2047"));
}

#[test]
fn cmdline_as_long_as_the_kernel_takes_is_taken() {
    let ran = Bench::new().run(&["--check", "--kernel", "kernel", "--cmdline", &"x".repeat(2047)]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
}

#[test]
fn cmdline_with_a_letter_that_is_not_ascii_is_refused() {
    let ran = Bench::new().run(&["--check", "--kernel", "kernel", "--cmdline", "name=é"]);
    let message = "--cmdline: byte 5 is the non-ASCII character 'é', use printable ASCII only";
    assert_eq!(ran, complaint(USAGE, message));
}

#[test]
fn cmdline_with_a_control_character_is_refused() {
    let ran = Bench::new().run(&["--check", "--kernel", "kernel", "--cmdline", "a\tb"]);
    let message = "--cmdline: byte 1 is the control character 0x09, use printable ASCII only";
    assert_eq!(ran, complaint(USAGE, message));
}
