//! The guest sees the memory that the plan says, and it is memory.

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::Trial;

use crate::common::{ENDED, kernel};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        memory_of_32_mib_is_what_check_prints,
        memory_of_512_mib_is_what_check_prints,
        memory_of_5_gib_is_what_check_prints_and_works_above_4_gib,
    ]
}

/// What the guest says of its memory, the map in the words of `--check`.
fn told_by_guest(size: &str) -> String {
    let mut monitor = Monitor::command(["--kernel", &kernel("memory"), "--memory", size]).start();
    let map = monitor.expect("bss zero\n", DEADLINE);
    monitor.expect("first word ok\nlast word ok\n", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
    map.lines().map(in_words_of_check).collect()
}

/// `START LENGTH TYPE` as a line of `--check`.
fn in_words_of_check(entry: &str) -> String {
    let fields: Vec<u64> = entry.split(' ').map(|field| u64::from_str_radix(field, 16).unwrap()).collect();
    let [start, len, kind] = fields[..] else { panic!("{entry:?} is no entry") };
    let kind = if kind == 1 { "RAM" } else { "reserved" };
    format!("  {start:#011x}..{:#011x} {kind}\n", start + len)
}

/// The memory map that `--check` prints.
fn told_by_check(size: &str) -> String {
    let mut monitor = Monitor::command(["--kernel", &kernel("memory"), "--memory", size, "--check"]).start();
    monitor.expect("memory map:\n", DEADLINE);
    let map = monitor.expect("placements:\n", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
    map
}

fn memory_of_32_mib_is_what_check_prints() {
    let map = told_by_guest("32M");
    assert_eq!(map, told_by_check("32M"));
    assert!(map.ends_with("  0x000100000..0x002000000 RAM\n"), "{map}");
}

fn memory_of_512_mib_is_what_check_prints() {
    let map = told_by_guest("512M");
    assert_eq!(map, told_by_check("512M"));
    assert!(map.ends_with("  0x000100000..0x020000000 RAM\n"), "{map}");
}

fn memory_of_5_gib_is_what_check_prints_and_works_above_4_gib() {
    let map = told_by_guest("5G");
    assert_eq!(map, told_by_check("5G"));
    // 3 GiB below the gap, 2 GiB above.
    assert!(map.ends_with("  0x000100000..0x0c0000000 RAM\n  0x100000000..0x180000000 RAM\n"), "{map}");
}
