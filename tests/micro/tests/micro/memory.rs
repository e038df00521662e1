//! The guest sees the memory of the plan, and can use it.

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{BY_SIGTERM, ENDED, kernel};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        memory_of_32_mib_is_what_check_prints,
        memory_of_512_mib_is_what_check_prints,
        memory_of_5_gib_is_what_check_prints_and_works_above_4_gib,
        memory_that_is_shared_is_a_memfd,
        memory_that_is_shared_is_zero_after_each_reset,
    ]
}

/// The memory map that the guest reports, in the format of `--check`.
fn map_of_guest(size: &str) -> String {
    let mut monitor = Monitor::command(["--kernel", &kernel("memory"), "--memory", size]).start();
    let map = monitor.expect("bss zero\n", DEADLINE);
    monitor.expect("first word ok\nlast word ok\n", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
    map.lines().map(check_line).collect()
}

/// Converts `START LENGTH TYPE` to a line of `--check`.
fn check_line(entry: &str) -> String {
    let fields: Vec<u64> = entry.split(' ').map(|field| u64::from_str_radix(field, 16).unwrap()).collect();
    let [start, len, kind] = fields[..] else { panic!("{entry:?} is no entry") };
    let kind = if kind == 1 { "RAM" } else { "reserved" };
    format!("  {start:#011x}..{:#011x} {kind}\n", start + len)
}

/// The memory map that `--check` prints.
fn map_of_check(size: &str) -> String {
    let mut monitor = Monitor::command(["--kernel", &kernel("memory"), "--memory", size, "--check"]).start();
    monitor.expect("memory map:\n", DEADLINE);
    let map = monitor.expect("placements:\n", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
    map
}

fn memory_of_32_mib_is_what_check_prints() {
    let map = map_of_guest("32M");
    assert_eq!(map, map_of_check("32M"));
    assert!(map.ends_with("  0x000100000..0x002000000 RAM\n"), "{map}");
}

fn memory_of_512_mib_is_what_check_prints() {
    let map = map_of_guest("512M");
    assert_eq!(map, map_of_check("512M"));
    assert!(map.ends_with("  0x000100000..0x020000000 RAM\n"), "{map}");
}

fn memory_of_5_gib_is_what_check_prints_and_works_above_4_gib() {
    let map = map_of_guest("5G");
    assert_eq!(map, map_of_check("5G"));
    // 3 GiB below the gap, 2 GiB above.
    assert!(map.ends_with("  0x000100000..0x0c0000000 RAM\n  0x100000000..0x180000000 RAM\n"), "{map}");
}

/// Starts a real-mode program at 0x1000 with 1 MiB of memory, shared or not, which restarts after each reset.
fn boot_flat(program: &[u8], is_shared: bool) -> (TempDir, Monitor) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("guest.bin"), program).expect("room for a program");
    let config = format!(
        r#"{{"boot": {{"flat": {{"image": "guest.bin", "load_address": "0x1000"}}}}, "on_reboot": "restart",
            "memory": {{"size": "1M", "shared": {is_shared}}}, "devices": [{{"type": "pseudo-serial", "port": "0xf1"}}]}}"#
    );
    std::fs::write(dir.path().join("vm.json"), config).expect("room for a config");
    let monitor = Monitor::command(["--config", "vm.json"]).dir(dir.path()).start();
    (dir, monitor)
}

/// Prints "R" and loops forever.
const RUNS: [u8; 6] = [
    0xb0, b'R', // mov al, 'R'
    0xe6, 0xf1, // out 0xf1, al
    0xeb, 0xfe, // jmp, to itself
];

/// The monitor's mappings of the guest RAM's memfd.
fn memfds(program: &[u8], is_shared: bool) -> Vec<String> {
    let (_dir, mut monitor) = boot_flat(program, is_shared);
    monitor.expect("R", DEADLINE);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", monitor.pid())).expect("it runs");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    maps.lines().filter(|line| line.contains("/memfd:guest-ram")).map(str::to_owned).collect()
}

fn memory_that_is_shared_is_a_memfd() {
    let maps = memfds(&RUNS, true);
    let [map] = &maps[..] else { panic!("{maps:?}") };
    let fields: Vec<_> = map.split_whitespace().collect();
    let (start, end) = fields[0].split_once('-').expect("a range");
    let number = |text| u64::from_str_radix(text, 16).expect("an address");
    assert_eq!((number(end) - number(start), fields[1]), (1 << 20, "rw-s"), "{map}");
    assert_eq!(memfds(&RUNS, false), [""; 0], "unless it's asked for");
}

/// Prints the bytes at 0x2000 and 0xf0000 as digits, stores 1 at both, and resets through the i8042.
const DIRTIES: [u8; 38] = [
    0xa0, 0x00, 0x20, // mov al, [0x2000]
    0x04, b'0', // add al, '0'
    0xe6, 0xf1, // out 0xf1, al
    0xc6, 0x06, 0x00, 0x20, 0x01, // mov byte [0x2000], 1
    0xb8, 0x00, 0xf0, // mov ax, 0xf000
    0x8e, 0xd8, // mov ds, ax
    0xa0, 0x00, 0x00, // mov al, [0]
    0x04, b'0', // add al, '0'
    0xe6, 0xf1, // out 0xf1, al
    0xc6, 0x06, 0x00, 0x00, 0x01, // mov byte [0], 1
    0xb0, b' ', // mov al, ' '
    0xe6, 0xf1, // out 0xf1, al
    0xb0, 0xfe, // mov al, 0xfe
    0xe6, 0x64, // out 0x64, al
    0xf4, // hlt
];

fn memory_that_is_shared_is_zero_after_each_reset() {
    let (_dir, mut monitor) = boot_flat(&DIRTIES, true);
    let said = monitor.expect("00 00 00 00 ", DEADLINE);
    assert_eq!(said, "", "from the first start on");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}
