//! Snapshot benchmark: the time that it takes to save a running machine, and the time from exec of a restore to its guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::spec::{SnapshotSample, SnapshotSpec};
use super::guest::{Guest, last};
use super::run::{FIRST_RUN, number_after};
use crate::failure::Failure;

/// The beginning of the line with the steps of a start, which vmm-bin logs with -v: `the start took 5000 us (opening files 900, walls 600)`.
const STEPS: &str = "the start took ";

/// Starts the guest, saves it once a round, and restores each snapshot.
pub(super) fn all(spec: &SnapshotSpec) -> Result<Vec<SnapshotSample>, Failure> {
    super::warm::warm(&spec.warm)?;
    let directory = Directory::new()?;
    let control = directory.0.join("vm.sock");
    let mut argv = spec.guest.argv.clone();
    argv.extend(["--control".to_owned(), control.display().to_string()]);
    let mut guest = Guest::start(&argv)?;
    if let Err(problem) = guest.wait_for(&spec.ready, deadline(spec)) {
        return Err(guest.end_with(problem).into());
    }
    let mut samples = Vec::new();
    for round in 1..=spec.rounds {
        let snapshot = directory.0.join(format!("{round}.snap"));
        let save_ms = save(&argv[0], &control, &snapshot)?;
        let sample = SnapshotSample { save_ms, ..restore(&argv[0], &snapshot, spec)? };
        println!(
            "round {round} of {}: {}: saved in {save_ms:.1} ms, restored in {:.1} ms",
            spec.rounds, spec.guest.name, sample.echo_ms
        );
        samples.push(sample);
        fs::remove_dir_all(&snapshot)?;
    }
    Ok(samples)
}

/// Has the running machine saved, and returns the time that `ctl` takes, in ms.
fn save(monitor: &str, control: &Path, snapshot: &Path) -> Result<f64, Failure> {
    let start = Instant::now();
    let output = Command::new(monitor).arg("ctl").arg(control).arg("snapshot").arg(snapshot).output()?;
    let taken = start.elapsed();
    if !output.status.success() {
        return Err(format!("no snapshot: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(taken.as_secs_f64() * 1000.0)
}

/// Restores a machine, types to its guest and waits for the answer.
fn restore(monitor: &str, snapshot: &Path, spec: &SnapshotSpec) -> Result<SnapshotSample, Failure> {
    let argv = [monitor, "restore", &snapshot.display().to_string(), "-v"].map(str::to_owned);
    let start = Instant::now();
    let mut guest = Guest::start(&argv)?;
    guest.send(&spec.typed)?;
    let echoed = guest.wait_for(&spec.echoed, deadline(spec));
    let log = guest.end();
    let at =
        echoed.map_err(|problem| format!("the restored guest doesn't answer: {problem} {}", last(&log)))?;
    let first_run_us = log.iter().find_map(|line| number_after(line, FIRST_RUN));
    Ok(SnapshotSample {
        save_ms: 0.0,
        first_run_us: first_run_us.ok_or("the restored machine logged no first KVM_RUN")?,
        echo_ms: (at - start).as_secs_f64() * 1000.0,
        steps: log.iter().find_map(|line| steps(line)).unwrap_or_default(),
    })
}

fn deadline(spec: &SnapshotSpec) -> Instant {
    Instant::now() + Duration::from_secs(spec.timeout_s)
}

/// The steps of a start, each with its microseconds.
fn steps(line: &str) -> Option<Vec<(String, u64)>> {
    let list = line.split_once(STEPS)?.1.split_once('(')?.1.strip_suffix(')')?;
    let step = |step: &str| {
        let (name, time) = step.rsplit_once(' ')?;
        Some((name.to_owned(), time.parse().ok()?))
    };
    list.split(", ").map(step).collect()
}

/// A directory for the socket and the snapshots, removed when this is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("bench-snapshot-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("can't create {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left is in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_start_are_found() {
        let line = "INFO the start took 1500 us (opening files 900, walls 600)";
        let found = steps(line).unwrap();
        assert_eq!(found, [("opening files".to_owned(), 900), ("walls".to_owned(), 600)]);
        assert_eq!(steps("INFO sandbox: walls took 600 us (jail 600)"), None);
    }
}
