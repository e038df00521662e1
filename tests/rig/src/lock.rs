//! A lock file, so that two test runs don't prepare the same asset concurrently.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{At, Result};
use crate::progress::note;

/// 2 s in total: a shorter wait isn't reported.
const QUIET_TRIES: u32 = 40;
const QUIET_INTERVAL: Duration = Duration::from_millis(50);

/// A held lock; released on drop, and by the kernel if the process dies.
#[must_use = "the lock is released when this is dropped"]
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Waits for the lock at `path`, which is created if absent. `what` is printed if the wait is long.
pub(crate) fn exclusive(path: &Path, what: &str) -> Result<Lock> {
    for _ in 0..QUIET_TRIES {
        if let Some(lock) = try_exclusive(path)? {
            return Ok(lock);
        }
        thread::sleep(QUIET_INTERVAL);
    }
    note(&format!("waiting for another process that prepares {what}"));
    let file = open(path)?;
    flock(&file, FlockOperation::LockExclusive).at("lock", path)?;
    Ok(Lock { _file: file })
}

/// Takes the lock at `path` if it is free.
pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Lock>> {
    let file = open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno).at("lock", path),
    }
}

fn open(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).at("create", parent)?;
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(path).at("open", path)
}
