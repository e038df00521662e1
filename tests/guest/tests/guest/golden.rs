//! Snapshots that earlier versions have made, in the rig: its processor is always the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use driver::{DEADLINE, Monitor, Stdin, monitor_program};
use libtest_mimic::{Completion, Trial};
use tempfile::TempDir;

pub(crate) fn tests() -> Vec<Trial> {
    vec![Trial::ignorable_test("golden_snapshots_of_earlier_versions_are_restored_in_the_rig", || {
        if !rig::in_rig() {
            return Ok(Completion::ignored_with("they were made on the rig's processor"));
        }
        golden_snapshots_are_restored();
        Ok(Completion::Completed)
    })]
}

/// The snapshots `machine-N`, of a guest that echoes, with one device of each kind that needs nothing of the host.
fn snapshots() -> Vec<PathBuf> {
    let all = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/snapshots"))
        .expect("the fixtures");
    let all = all.map(|entry| entry.expect("an entry").path());
    let is_machine =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("machine-"));
    all.filter(is_machine).collect()
}

fn golden_snapshots_are_restored() {
    let all = snapshots();
    assert!(!all.is_empty());
    for snapshot in all {
        for memory in ["map", "copy"] {
            let dir = TempDir::new().expect("a directory");
            let again = restore(&snapshot, memory, dir.path());
            // What this version writes is continued as well.
            let dir = TempDir::new().expect("a directory");
            restore(&again, memory, dir.path());
        }
    }
}

/// Restores a snapshot, lets its guest echo, and returns another one that was taken of it.
fn restore(snapshot: &Path, memory: &str, dir: &Path) -> PathBuf {
    let disk = dir.join("disk.img");
    let empty = |file: File| {
        file.set_len(64 << 10)?;
        // As the saved one. Version 1 didn't compare it.
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000))
    };
    File::create(&disk).and_then(empty).expect("room for a disk");
    let socket = dir.join("vm.sock");
    let mut monitor =
        Monitor::command(["restore", &snapshot.to_string_lossy(), "--memory", memory, "--control"])
            .args([&socket])
            .args(["--set", &format!("devices.disk0.path={}", disk.display())])
            .args(["--set", &format!("devices.console0.target.file={}", dir.join("console").display())])
            .args(["--set", &format!("devices.vsock0.path={}", dir.join("vsock").display())])
            .stdin(Stdin::Pipe)
            .start();
    for text in ["a", "b"] {
        monitor.send(text.as_bytes());
        monitor.expect(text, DEADLINE);
    }
    let again = dir.join("again.snap");
    let ctl = |words: &[&Path]| {
        let output = Command::new(monitor_program()).arg("ctl").arg(&socket).args(words).output();
        let output = output.expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    ctl(&[Path::new("snapshot"), &again, Path::new("--stop")]);
    monitor.expect_code(0, DEADLINE);
    again
}
