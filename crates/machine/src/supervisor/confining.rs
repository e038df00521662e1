//! The point of the start at which the process has one thread and every file is open, so that it can be confined.

use std::fs::read_dir;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use vmm_hostio::path_keeper::KEPT_CALLS;
use vmm_kvm::{SAVE_CALLS, VCPU_CALLS};
use vmm_sandbox::{Allow, SPAWN, confine_thread};
use vmm_virtio::DEVICE_CALLS;

use super::Supervisor;
use super::offloaded::Offloaded;
use crate::Error;
use crate::error::HostContext;
use crate::system_calls::{BUILD_CALLS, MAIN_CALLS, SNAPSHOT_CALLS, WRITER_CALLS};

/// How long the kernel may take to remove a thread that has ended.
const PATIENCE: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Calls `act` while the process has only this thread: what Linux confines is a thread, and later ones inherit it. The threads of
    /// the jobs and of the attached messages are stopped and then started again.
    ///
    /// # Errors
    /// There are other threads. The host is out of threads.
    pub(super) fn single_threaded<T>(&mut self, act: impl FnOnce() -> T) -> Result<Offloaded<T>, Error> {
        let attached = self.attached.clone();
        // A writer that hangs doesn't keep the user from ending the monitor.
        let stopped = self.offload(move |progress| {
            let _step = progress.begin("writing the log".to_owned());
            attached.iter().filter_map(|messages| messages.stop()).collect::<Vec<_>>()
        })?;
        let stopped = match stopped {
            Offloaded::Done(stopped) => stopped,
            Offloaded::Ended(ending) => return Ok(Offloaded::Ended(ending)),
        };
        self.worker.stop();
        let acted = wait_for_threads().map(|()| act());
        // The log first, and all of it: it says why the rest fails.
        let logs = stopped.iter().map(|target| target.start()).fold(Ok(()), io::Result::and);
        logs.context("thread of the log")?;
        self.worker.restart().context("thread of the jobs")?;
        acted.map(Offloaded::Done).context("threads at the start")
    }

    /// Restricts this thread and that of the jobs to the system calls of `lists` and their own: the union of all threads', since they
    /// build machines and stop them. A thread that was started before has its own filter; later ones also have this one.
    pub(super) fn confine_main(
        &mut self,
        lists: Vec<&'static [Allow]>,
        builds: bool,
    ) -> Result<Offloaded<()>, Error> {
        let mut lists = [
            &[VCPU_CALLS, SAVE_CALLS, MAIN_CALLS, SNAPSHOT_CALLS, WRITER_CALLS, KEPT_CALLS, SPAWN][..],
            &lists,
            &[DEVICE_CALLS],
        ]
        .concat();
        if builds {
            lists.extend([vmm_kvm::BUILD_CALLS, BUILD_CALLS]);
        }
        let theirs = lists.clone();
        match self.offload(move |_| confine_thread("jobs", &theirs))? {
            Offloaded::Done(confined) => confined.map_err(Error::Confine)?,
            Offloaded::Ended(ending) => return Ok(Offloaded::Ended(ending)),
        }
        confine_thread("main", &lists).map_err(Error::Confine)?;
        Ok(Offloaded::Done(()))
    }
}

/// Waits until this is the process's only thread. Without /proc, a thread that is still ending isn't seen.
fn wait_for_threads() -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    while read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        if Instant::now() >= until {
            return Err(io::Error::other("there are threads besides the main one"));
        }
        thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}
