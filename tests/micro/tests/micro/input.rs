//! Input from standard input reaches the guest completely, or waits.

use std::path::PathBuf;
use std::time::Duration;

use driver::{BULK_DEADLINE, DEADLINE, Launch, Monitor, Stdin};
use harness::trials;
use libtest_mimic::Trial;
use micro_tests::fnv1a;
use nix::sys::signal::Signal;

use crate::common::{BY_SIGTERM, ENDED, RAM_LEN, boot};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        input_pipe_is_echoed,
        input_pipe_at_its_end_guest_runs_on,
        input_pipe_into_a_guest_that_resets_for_each_byte_arrives_whole,
        input_null_guest_runs_on,
        input_closed_guest_runs_on,
        input_file_of_64_kib_arrives_whole,
        input_pipe_of_64_kib_arrives_whole,
        input_pipe_of_64_kib_while_guest_prints_arrives_whole,
        input_flood_of_100_mb_to_deaf_guest_takes_no_memory,
        input_endless_file_to_deaf_guest_takes_no_time,
    ]
}

/// 64 KiB with every byte value except 0x01, which is the monitor's own key on a terminal. The sequence has a period of 16 MiB.
pub(crate) fn paste() -> Vec<u8> {
    (0..65536_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).map(|byte| byte.max(2)).collect()
}

/// Waits for the hash that the guest prints of its input.
pub(crate) fn expect_hash(monitor: &mut Monitor, bytes: &[u8]) {
    monitor.expect(&format!("hash {:08x}\n", fnv1a(bytes)), BULK_DEADLINE);
}

fn input_pipe_is_echoed() {
    let mut monitor = boot("echo").stdin(Stdin::Pipe).start();
    monitor.expect("ready\n", DEADLINE);
    monitor.send(b"typed\x00\x01\xff|\x04");
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stdout(), b"ready\ntyped\x00\x01\xff|bye\n");
}

/// Asserts that the guest keeps running and prints nothing until SIGTERM ends the monitor.
fn assert_runs_on(mut monitor: Monitor) {
    monitor.expect_quiet(Duration::from_millis(200));
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

fn input_pipe_at_its_end_guest_runs_on() {
    let mut monitor = boot("echo").stdin(Stdin::Pipe).start();
    monitor.send(b"last");
    monitor.close_stdin();
    monitor.expect("ready\nlast", DEADLINE);
    assert_runs_on(monitor);
}

/// Waits for a byte, prints it, and resets the machine through the keyboard controller.
const PRINT_ONE_AND_RESET: [u8; 18] = [
    0xba, 0xfd, 0x03, // mov dx, 0x3fd
    0xec, // in al, dx
    0xa8, 0x01, // test al, 1
    0x74, 0xfb, // jz, to the `in`
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xec, // in al, dx
    0xee, // out dx, al
    0xb0, 0xfe, // mov al, 0xfe
    0xe6, 0x64, // out 0x64, al
    0xf4, // hlt
];

/// Each time, there is more in the UART's FIFO than the guest has read.
fn input_pipe_into_a_guest_that_resets_for_each_byte_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("guest.bin"), PRINT_ONE_AND_RESET).unwrap();
    let config = r#"{"boot": {"flat": {"image": "guest.bin"}}, "on_reboot": "restart"}"#;
    std::fs::write(dir.path().join("vm.json"), config).unwrap();
    let mut monitor = Monitor::command(["--config", "vm.json"]).dir(dir.path()).stdin(Stdin::Pipe).start();
    let typed = "0123456789".repeat(8);
    monitor.send(typed.as_bytes());
    monitor.expect(&typed, BULK_DEADLINE);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn input_null_guest_runs_on() {
    let mut monitor = boot("echo").stdin(Stdin::Null).start();
    monitor.expect("ready\n", DEADLINE);
    assert_runs_on(monitor);
}

fn input_closed_guest_runs_on() {
    let mut monitor = boot("echo").stdin(Stdin::Closed).start();
    monitor.expect("ready\n", DEADLINE);
    assert_runs_on(monitor);
}

fn input_file_of_64_kib_arrives_whole() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), paste()).unwrap();
    let mut monitor = boot("hash-64k").stdin(Stdin::File(file.path().to_owned())).start();
    expect_hash(&mut monitor, &paste());
    monitor.expect_code(ENDED, DEADLINE);
}

fn paste_into_pipe(launch: Launch) -> Monitor {
    let mut monitor = launch.stdin(Stdin::Pipe).start();
    monitor.send(&paste());
    expect_hash(&mut monitor, &paste());
    monitor.expect_code(ENDED, DEADLINE);
    monitor
}

fn input_pipe_of_64_kib_arrives_whole() {
    paste_into_pipe(boot("hash-64k"));
}

fn input_pipe_of_64_kib_while_guest_prints_arrives_whole() {
    let monitor = paste_into_pipe(boot("hash-64k-chatty"));
    let printed = monitor.stdout().iter().filter(|&&byte| byte == b'y').count();
    // One per byte, and one in "ready".
    assert_eq!(printed, 65536 + 1);
}

fn input_flood_of_100_mb_to_deaf_guest_takes_no_memory() {
    let mut monitor = boot("halt").stdin(Stdin::Pipe).start();
    monitor.expect("ready\n", DEADLINE);
    let before = monitor.own_dirty_kib(&[RAM_LEN]);
    // Ends when nothing is accepted any more: the pipe is full, and the monitor has stopped reading.
    let taken = monitor.offer(&vec![b'x'; 100 << 20], Duration::from_millis(500));
    assert!(taken < 1 << 20, "{taken} bytes of input went somewhere");
    let grown = monitor.own_dirty_kib(&[RAM_LEN]).saturating_sub(before);
    // Some pages are touched for the first time.
    assert!(grown <= 128, "{grown} KiB more than before");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

/// A file is always readable: waiting for it in epoll without reading it would be a busy loop.
fn input_endless_file_to_deaf_guest_takes_no_time() {
    let mut monitor = boot("halt").stdin(Stdin::File(PathBuf::from("/dev/zero"))).start();
    monitor.expect("ready\n", DEADLINE);
    let before = monitor.cpu_time();
    monitor.expect_quiet(Duration::from_millis(500));
    let used = monitor.cpu_time() - before;
    assert!(used <= Duration::from_millis(100), "{used:?} of processor time in half a second");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}
