//! Guest tests once more in other settings: with the monitor as an ordinary user's process, and with the newest C library.

use driver::{DEADLINE, Launch};
use harness::{Setting, trials};
use libtest_mimic::Trial;

/// One or two tests of each kind of device and of end, about 5 s each.
const CHOSEN: [&str; 12] = [
    "session_linux_sees_the_planned_machine",
    "memory_of_128_mib_boots",
    "power_off_with_four_processors_ends_the_monitor",
    "power_reset_with_restart_boots_again_in_the_same_process",
    "virtio_block_reads_and_writes_a_raw_file",
    "virtio_overlay_keeps_what_was_flushed_over_a_reset",
    "virtio_balloon_gives_memory_back_to_the_host",
    "pci_cloud_6_1_has_a_vector_for_each_queue_and_no_complaint",
    "net_carries_pings_and_a_mebibyte_both_ways",
    "usernet_carries_bytes_both_ways_and_into_the_guest",
    "vsock_agents_talk_in_both_directions",
    "ending_by_sigterm_restores_terminal",
];

/// All of `all`, of which only those in [`CHOSEN`] run without being asked for.
pub(crate) fn as_user(all: Vec<Trial>) -> Vec<Trial> {
    let unknown = CHOSEN.iter().find(|name| !all.iter().any(|test| test.name() == **name));
    assert_eq!(unknown, None, "no such test");
    let again = all.into_iter().filter(|test| !test.has_ignored_flag()).map(|test| {
        let is_chosen = CHOSEN.contains(&test.name());
        test.with_ignored_flag(!is_chosen)
    });
    let own = trials![programs_under_test_are_an_ordinary_users];
    own.into_iter().chain(again).map(|test| test.with_kind(Setting::AsUser.name())).collect()
}

/// Those in [`CHOSEN`], on request, because the library must be fetched.
pub(crate) fn with_newest_libc(all: Vec<Trial>) -> Vec<Trial> {
    let chosen = all.into_iter().filter(|test| CHOSEN.contains(&test.name()));
    chosen.map(|test| test.with_kind(Setting::NewestLibc.name()).with_ignored_flag(true)).collect()
}

fn programs_under_test_are_an_ordinary_users() {
    let mut program = Launch::new("/bin/cat".as_ref(), ["/proc/self/status"]).start();
    program.expect_code(0, DEADLINE);
    let status = String::from_utf8(program.stdout()).expect("proc(5) is text");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    };
    let uids = field("Uid");
    assert!(uids.split('\t').all(|uid| uid != "0"), "{status}");
    assert_eq!(["CapInh", "CapPrm", "CapEff", "CapAmb"].map(field), ["0000000000000000"; 4]);
}
