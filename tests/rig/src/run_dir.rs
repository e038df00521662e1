//! The directory of a run, shared with the outer machine: the command goes in, its exit code and logs come
//! out.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{At, Result};
use crate::lock::{self, Lock};

const LOCK: &str = "lock";

/// Removed on drop. If this process is killed, the next run removes it, because its lock is free then.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    _lock: Lock,
}

impl RunDir {
    /// Creates a new directory in `parent`, and removes those of dead processes.
    pub(crate) fn create(parent: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Held while a directory exists without its own lock.
        let _creating = lock::exclusive(&parent.join(LOCK), "the rig's directory")?;
        sweep(parent)?;
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(name);
        fs::create_dir_all(&path).at("create", &path)?;
        let lock = lock::exclusive(&path.join(LOCK), "this run")?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file `name`.
    pub(crate) fn write(&self, name: &str, contents: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        fs::write(&path, contents).at("write", &path)
    }

    /// The contents of file `name`, trimmed; `None` until it exists.
    pub(crate) fn read(&self, name: &str) -> Option<String> {
        let bytes = fs::read(self.path.join(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // A failure is ignored; the next run tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn sweep(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).at("list", parent)?.flatten() {
        let path = entry.path();
        if path.is_dir() && lock::try_exclusive(&path.join(LOCK)).is_ok_and(|lock| lock.is_some()) {
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_dir_dropped_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let run = RunDir::create(parent.path()).unwrap();
        let path = run.path().to_owned();
        drop(run);
        assert!(!path.exists());
    }

    #[test]
    fn run_dir_of_a_dead_process_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let stale = parent.path().join("1-0");
        fs::create_dir(&stale).unwrap();
        fs::write(stale.join(LOCK), "").unwrap();
        let _run = RunDir::create(parent.path()).unwrap();
        assert!(!stale.exists());
    }

    #[test]
    fn run_dir_in_use_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        let first = RunDir::create(parent.path()).unwrap();
        let _second = RunDir::create(parent.path()).unwrap();
        assert!(first.path().exists());
    }
}
