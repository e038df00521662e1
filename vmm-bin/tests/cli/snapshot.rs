//! The commands about snapshots on disk, with the one of format 1 in tests/fixtures.

use std::fs;
use std::path::Path;

use crate::bench::{BAD_CONFIG, Bench, DONE, USAGE, complaint};

/// A bench with the snapshot vm.snap.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.dir("vm.snap");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/snapshots/format-1");
    for name in ["manifest.json", "state", "memory"] {
        bench.file(&format!("vm.snap/{name}"), fs::read(golden.join(name)).unwrap());
    }
    bench
}

#[test]
fn snapshot_describe_says_what_it_is_of() {
    let ran = bench().run(&["snapshot", "describe", "vm.snap"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "snapshot  30313233343536373839616263646566");
    assert_eq!(lines[3], "by        vmm-bin 0.1.0, format 1");
    assert_eq!(lines.last(), Some(&"          dev.hint/0 version 1"));
}

#[test]
fn snapshot_describe_as_json_has_the_whole_manifest() {
    let bench = bench();
    let ran = bench.run(&["snapshot", "describe", "--json", "vm.snap"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    let printed: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let text = fs::read(bench.path("vm.snap/manifest.json")).unwrap();
    assert_eq!(printed, serde_json::from_slice::<serde_json::Value>(&text).unwrap());
}

#[test]
fn snapshot_verify_says_what_is_there() {
    let ran = bench().run(&["snapshot", "verify", "vm.snap"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    let start = "vm.snap: valid: 3 sections in 1356 bytes of state, 16 KiB of memory (";
    assert!(ran.stdout.starts_with(start), "{}", ran.stdout);
    assert!(ran.stdout.ends_with(" stored), 0 disks\n"), "{}", ran.stdout);
}

#[test]
fn snapshot_that_is_damaged_fails_with_what_is_damaged() {
    let bench = bench();
    let mut state = fs::read(bench.path("vm.snap/state")).unwrap();
    *state.last_mut().unwrap() ^= 1;
    bench.file("vm.snap/state", state);
    let message = "vm.snap/state: is damaged: the checksum of section dev.hint/0 doesn't match";
    assert_eq!(bench.run(&["snapshot", "verify", "vm.snap"]), complaint(BAD_CONFIG, message));
    assert_eq!(bench.run(&["snapshot", "describe", "vm.snap"]).code, Some(DONE));
}

#[test]
fn snapshot_of_a_newer_format_fails_with_its_number() {
    let bench = bench();
    bench.file("vm.snap/manifest.json", r#"{"format": 2}"#);
    let message = "vm.snap/manifest.json: has format 2, and this monitor reads up to 1: use a newer version";
    assert_eq!(bench.run(&["snapshot", "describe", "vm.snap"]), complaint(BAD_CONFIG, message));
    assert_eq!(bench.run(&["snapshot", "verify", "vm.snap"]), complaint(BAD_CONFIG, message));
}

#[test]
fn snapshot_that_is_missing_fails_with_its_name() {
    let message = "none/manifest.json: No such file or directory (os error 2)";
    assert_eq!(Bench::new().run(&["snapshot", "verify", "none"]), complaint(BAD_CONFIG, message));
}

#[test]
fn snapshot_without_a_command_is_a_usage_error() {
    let ran = Bench::new().run(&["snapshot"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(USAGE), ""));
    assert!(ran.stderr.contains("Usage: vmm-bin snapshot <COMMAND>"), "{}", ran.stderr);
}
