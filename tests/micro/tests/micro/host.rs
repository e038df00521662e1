//! Machines that exceed the host's limits.

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::Trial;

use crate::common::{BAD_CONFIG, HOST_CANT, kernel};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        memory_more_than_the_host_has_is_refused,
        cpus_above_the_limit_of_kvm_are_refused,
        cpus_without_room_in_the_acpi_tables_are_refused
    ]
}

/// The error message for a machine that the host can't run.
fn refusal(args: [&str; 4]) -> String {
    let mut monitor = Monitor::command(args).start();
    monitor.expect_code(HOST_CANT, DEADLINE);
    monitor.stderr()
}

/// This host's own figures, which vary, aren't compared.
fn memory_more_than_the_host_has_is_refused() {
    let said = refusal(["--kernel", &kernel("halt"), "--memory", "100T"]);
    assert!(said.starts_with("error: --memory: 104857600 MiB is more than this host has ("), "{said}");
    assert!(said.ends_with(" MiB)\n"), "{said}");
}

fn cpus_above_the_limit_of_kvm_are_refused() {
    // The maximum in a config; stock KVMs before Linux 6.7 support at most 1024 (KVM_MAX_VCPUS).
    let said = refusal(["--flat", &kernel("hello-real"), "--cpus", "4096"]);
    assert!(
        said.starts_with("error: --cpus: 4096 is more than this host's KVM supports (at most "),
        "{said}"
    );
}

fn cpus_without_room_in_the_acpi_tables_are_refused() {
    let mut monitor = Monitor::command(["--kernel", &kernel("halt"), "--cpus", "4096"]).start();
    monitor.expect_code(BAD_CONFIG, DEADLINE);
    let said = monitor.stderr();
    let message = "error: --cpus: too many processors: area 0xf0000..0x100000 has 65536 bytes, the ACPI tables of 4096 processors \
        and 3 devices need ";
    assert!(said.starts_with(message), "{said}");
    assert_eq!(said.matches("65536").count(), 1, "said once: {said}");
}
