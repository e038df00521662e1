//! Machines that exceed the host's limits.

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::{Completion, Trial};
use tempfile::TempDir;

use crate::common::{BAD_CONFIG, HOST_CANT, kernel};

pub(crate) fn tests() -> Vec<Trial> {
    let threads = Trial::ignorable_test("threads_that_the_host_lacks_are_named", || {
        if !nix::unistd::getuid().is_root() {
            return Ok(Completion::ignored_with(
                "only root can start a monitor as a user without other threads",
            ));
        }
        threads_that_the_host_lacks_are_named();
        Ok(Completion::Completed)
    });
    let files = Trial::ignorable_test("entropy_needs_no_file_of_the_host", || {
        if !nix::unistd::getuid().is_root() {
            return Ok(Completion::ignored_with("only root can hide files of the host"));
        }
        entropy_needs_no_file_of_the_host();
        Ok(Completion::Completed)
    });
    let mut trials = trials![
        memory_more_than_the_host_has_is_refused,
        cpus_above_the_limit_of_kvm_are_refused,
        cpus_without_room_in_the_acpi_tables_are_refused
    ];
    trials.extend([threads, files]);
    trials
}

/// In the rig with a static program, where the C library's functions can't be looked up.
fn entropy_needs_no_file_of_the_host() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("vm.json");
    let text = format!(r#"{{"boot": {{"kernel": {:?}}}, "devices": [{{"type": "rng"}}]}}"#, kernel("halt"));
    std::fs::write(&config, text).unwrap();
    let hide =
        r#"for file in random urandom; do mount --bind /dev/null /dev/$file || exit; done; exec "$0" "$@""#;
    let launch = Monitor::command(["--config", config.to_str().unwrap(), "--check"]);
    let mut monitor = launch.wrapped(["unshare", "--mount", "sh", "-c", hide]).start();
    monitor.expect_code(0, DEADLINE);
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

/// Of a limit of any size the monitor says that it is too low, or it runs: it needs threads of its own, and KVM needs one.
fn threads_that_the_host_lacks_are_named() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("stderr");
    // Threads of an ordinary user count, whoever has started them, so each attempt has a user of its own.
    let ends: Vec<_> = (0..12)
        .map(|limit| {
            let id = (50_000 + limit + std::process::id() % 10_000).to_string();
            // Into a file, which is written by a thread.
            let shell = format!(r#"ulimit -u {limit}; exec "$0" "$@" 2>{}"#, log.display());
            let words = ["--flat", &kernel("hello-real"), "--uid", &id, "--gid", &id];
            let mut monitor = Monitor::command(words).wrapped(["sh", "-c", &shell]).start();
            let code = monitor.expect_exit(DEADLINE).code();
            (code, std::fs::read_to_string(&log).unwrap())
        })
        .collect();
    let is_named = |said: &str| {
        let error = said.lines().find(|line| line.starts_with("error: "));
        error.is_some_and(|error| error.contains("raise the limit of threads (ulimit -u"))
    };
    for (limit, (code, said)) in ends.iter().enumerate() {
        assert!(*code == Some(0) || *code == Some(HOST_CANT) && is_named(said), "{limit}: {code:?}: {said}");
    }
    assert_eq!(ends.last().unwrap().0, Some(0));
}
