//! `vmm-bin ctl SOCKET snapshot DIR`: makes the files of a snapshot, which the monitor writes.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal, raise};
use serde_json::Value;
use vmm_config::{Command, ErrorCode, SnapshotCommand, printable};
use vmm_control::{Client, ClientError};
use vmm_snapshot::{NewSnapshot, SnapshotFiles, verify};

use crate::ctl_error::CtlError;

/// Signals that end `ctl`, after which the snapshot is removed.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Disks whose contents a snapshot can have: as many as files that a request takes besides those for state and memory.
const DISKS_MAX: usize = 32;

/// A snapshot that is being written, which a signal takes away.
#[derive(Clone, Debug)]
struct Interruptible(Arc<Mutex<Option<NewSnapshot>>>);

/// Has the monitor write a snapshot to the new directory `directory`, and returns a line about it.
///
/// With `with_disks` it contains the contents of the writable disks.
/// With `stop` the machine ends when the monitor has written everything. What was written is then the guest: it isn't removed from then on,
/// even if the directory can't get its name.
///
/// # Errors
/// The directory can't be made, or the monitor refuses or fails to write it. Nothing is left then.
pub(crate) fn take(
    client: &mut Client,
    directory: &Path,
    (stop, with_disks): (bool, bool),
) -> Result<String, CtlError> {
    let disks = if with_disks { writable_disks(client)? } else { Vec::new() };
    let new = NewSnapshot::create(directory).map_err(CtlError::NewSnapshot)?;
    let files = new.files().map_err(CtlError::NewSnapshot)?;
    let of_disks: Vec<File> = disks
        .iter()
        .map(|id| new.disk(id).map(|(file, _)| file))
        .collect::<Result<_, _>>()
        .map_err(CtlError::NewSnapshot)?;
    let new = Interruptible::start(new, stop)?;
    let command = Command::Snapshot(SnapshotCommand { stop, disks });
    let mut descriptors = vec![files.state.as_fd(), files.memory.as_fd()];
    descriptors.extend(of_disks.iter().map(AsFd::as_fd));
    let answer = client.execute_with(command, &descriptors);
    let mut new = new.take();
    if let Ok(result) = &answer
        && let Err(error) = set_times(&of_disks, result)
    {
        return Err(if stop { CtlError::kept(new.keep().to_owned(), &error) } else { error });
    }
    if stop {
        finish_stopped(new, files, answer.err())?;
    } else {
        answer?;
        finish(new, files)?;
    }
    let verified = verify(directory).map_err(CtlError::Snapshot)?;
    Ok(format!("{}: {}\n", printable(&directory.to_string_lossy()), verified.amounts()))
}

/// The ids of the disks that the guest can write.
fn writable_disks(client: &mut Client) -> Result<Vec<String>, CtlError> {
    let status = client.execute(Command::Status)?;
    let devices = status["status"]["machine"]["devices"].as_array().cloned().unwrap_or_default();
    let disks: Vec<String> = devices
        .iter()
        .filter(|device| device["writable_disk"] == true)
        .filter_map(|device| Some(device["id"].as_str()?.to_owned()))
        .collect();
    match disks.len() {
        0..=DISKS_MAX => Ok(disks),
        count => Err(CtlError::Usage(format!(
            "--disks: the machine has {count} writable disks, and a request takes at most {DISKS_MAX}; pause the machine and copy them"
        ))),
    }
}

/// Gives the copies of disks the modification times of the originals, by which a restore knows that they haven't changed. The monitor, which is
/// another user, can't.
fn set_times(disks: &[File], result: &Value) -> Result<(), CtlError> {
    for (index, file) in disks.iter().enumerate() {
        let Some(ns) = result["snapshot"]["modified_ns"][index].as_i64() else { continue };
        let duration = Duration::from_nanos(ns.unsigned_abs());
        let time = if ns < 0 { UNIX_EPOCH - duration } else { UNIX_EPOCH + duration };
        let failed = |source| CtlError::Host { what: "modification time of a disk", source };
        file.set_modified(time).map_err(failed)?;
    }
    Ok(())
}

/// Gives a snapshot that the monitor has written its name.
fn finish(new: NewSnapshot, files: SnapshotFiles) -> Result<(), CtlError> {
    new.copy_manifest(files).and_then(|()| new.publish()).map(drop).map_err(CtlError::Snapshot)
}

/// The same, when the guest has ended, or the monitor without an answer: then the snapshot may be complete all the same.
fn finish_stopped(
    mut new: NewSnapshot,
    files: SnapshotFiles,
    failed: Option<ClientError>,
) -> Result<(), CtlError> {
    let Some(failed) = failed else {
        let kept = new.keep().to_owned();
        return finish(new, files).map_err(|error| CtlError::kept(kept, &error));
    };
    let is_refused = matches!(&failed, ClientError::Refused(error) if error.code != ErrorCode::Ended);
    if !is_refused && new.copy_manifest(files).is_ok() {
        return Err(CtlError::kept(new.keep().to_owned(), &failed.into()));
    }
    Err(failed.into())
}

impl Interruptible {
    /// Has a signal that ends this program remove the snapshot before, unless the machine ends with it: the monitor may still complete it
    /// then. Signals that are ignored stay so.
    fn start(new: NewSnapshot, stop: bool) -> Result<Self, CtlError> {
        let host = |what| move |source| CtlError::Host { what, source };
        let ignored = ignored();
        let signals: SigSet = ENDING.into_iter().filter(|signal| ignored & bit(*signal) == 0).collect();
        signals.thread_block().map_err(|errno| host("signals")(errno.into()))?;
        let this = Self(Arc::new(Mutex::new(Some(new))));
        let theirs = this.clone();
        let wait = move || {
            while let Ok(signal) = signals.wait() {
                let Some(mut new) = theirs.lock().take() else {
                    // It is complete, and gets its name. This program then ends by itself.
                    continue;
                };
                if stop {
                    let kept = printable(&new.keep().to_string_lossy()).into_owned();
                    eprintln!("interrupted: the monitor may still complete the snapshot in {kept}, and end");
                }
                drop(new);
                // It is blocked in every thread, so it is this one that dies of it.
                let _ = SigSet::from(signal).thread_unblock().and_then(|()| raise(signal));
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(host("thread for signals"))?;
        Ok(this)
    }

    /// The snapshot, which no signal takes away from then on. Doesn't return if one has.
    fn take(self) -> NewSnapshot {
        loop {
            if let Some(new) = self.lock().take() {
                return new;
            }
            // The other thread ends the process.
            thread::park();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<NewSnapshot>> {
        self.0.lock().expect("no panic while it is held")
    }
}

impl CtlError {
    /// A failure after the guest has ended.
    fn kept(directory: PathBuf, error: &Self) -> Self {
        let error = crate::finish::chain(error);
        Self::Kept { directory, error }
    }
}

/// The signals that this process ignores, as of a shell's background job: bit n - 1 for signal n (SigIgn in proc_pid_status(5)).
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}
