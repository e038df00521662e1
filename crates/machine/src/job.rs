//! Work that may block on a file, on its own thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use vmm_bus::EventFd;

/// The thread's stack, in bytes. The config's parser needs the most of it. The default of 2 MiB would take a whole huge page on
/// hosts with transparent huge pages set to "always".
const STACK_LEN: usize = 1 << 20;

/// The steps that a job is carrying out, as text for the user.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The whole job, as a gerund phrase such as "starting".
    job: &'static str,
    steps: Mutex<Vec<String>>,
    /// Nobody waits for the job much longer.
    is_cancelled: AtomicBool,
}

impl Progress {
    fn new(job: &'static str) -> Self {
        Self(Arc::new(Shared { job, steps: Mutex::default(), is_cancelled: AtomicBool::new(false) }))
    }

    /// Enters a step, which lasts until the result is dropped. `what` is a gerund phrase such as "reading the kernel".
    pub fn begin(&self, what: String) -> ProgressStep {
        self.steps().push(what.clone());
        ProgressStep { progress: self.clone(), what }
    }

    /// Asks the job to give up what may take long and isn't necessary.
    pub(crate) fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::Release);
    }

    /// Whether the job has been [cancelled](Self::cancel).
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::Acquire)
    }

    fn steps(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.steps.lock().expect("no panic while it is held")
    }

    /// The unfinished steps, separated by commas; the whole job if there are none.
    pub(crate) fn text(&self) -> String {
        let steps = self.steps();
        if steps.is_empty() { self.0.job.to_owned() } else { steps.join(", ") }
    }
}

/// A step of a job, which ends when this is dropped.
#[derive(Debug)]
#[must_use = "the step ends when this is dropped"]
pub struct ProgressStep {
    progress: Progress,
    what: String,
}

impl Drop for ProgressStep {
    fn drop(&mut self) {
        let mut steps = self.progress.steps();
        if let Some(at) = steps.iter().position(|step| *step == self.what) {
            steps.remove(at);
        }
    }
}

/// Work on its own thread. Dropping this detaches the thread, which then drops the result.
#[derive(Debug)]
pub(crate) struct Job<T> {
    result: Receiver<thread::Result<T>>,
    progress: Progress,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Job<T> {
    /// Starts `work`, and writes `done` when the result is available. If the host can't create a thread, the work runs on this
    /// one: stopping a machine matters more than a responsive event loop.
    pub(crate) fn start(
        what: &'static str,
        done: Arc<EventFd>,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Self {
        let builder = thread::Builder::new().name("job".to_owned()).stack_size(STACK_LEN);
        Self::start_by(|body| builder.spawn(body), what, done, work)
    }

    fn start_by(
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
        what: &'static str,
        done: Arc<EventFd>,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Self {
        let (sender, result) = sync_channel(1);
        let progress = Progress::new(what);
        let theirs = progress.clone();
        let body = move || {
            let worked = catch_unwind(AssertUnwindSafe(|| work(&theirs)));
            // Fails if the job was dropped; the result is then dropped here.
            drop(sender.send(worked));
            // Can't be full: the counter would have to reach 2^64 - 1.
            let _ = done.write(1);
        };
        // A failed spawn drops its closure, so the work is kept here as well.
        let kept = Arc::new(Mutex::new(Some(body)));
        let take = |kept: &Mutex<Option<_>>| kept.lock().ok().and_then(|mut kept| kept.take());
        let theirs = Arc::clone(&kept);
        let run = move || {
            if let Some(body) = take(&theirs) {
                body();
            }
        };
        let thread = spawn(Box::new(run)).ok();
        if thread.is_none()
            && let Some(body) = take(&kept)
        {
            body();
        }
        Self { result, progress, thread }
    }

    /// The result, if the work is done; an error if it panicked. Must not be called again after it has returned a result.
    pub(crate) fn take(&mut self) -> Option<thread::Result<T>> {
        let result = self.result.try_recv().ok()?;
        if let Some(thread) = self.thread.take() {
            // It is about to exit. Joined, it no longer counts as a thread of the process.
            let _ = thread.join();
        }
        Some(result)
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn progress_names_what_is_not_done() {
        let progress = Progress::new("starting");
        assert_eq!(progress.text(), "starting");
        let kernel = progress.begin("reading the kernel".to_owned());
        let _disk = progress.begin("opening the disk".to_owned());
        assert_eq!(progress.text(), "reading the kernel, opening the disk");
        drop(kernel);
        assert_eq!(progress.text(), "opening the disk");
    }

    /// Sends the id of the thread that drops it.
    struct Result(std::sync::mpsc::Sender<thread::ThreadId>);

    impl Drop for Result {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[test]
    fn result_that_nobody_waits_for_is_dropped_on_its_own_thread() {
        let (go, gone) = channel::<()>();
        let (dropped, on) = channel();
        let done = Arc::new(EventFd::new().unwrap());
        let job = Job::start("starting", Arc::clone(&done), move |_| {
            gone.recv().unwrap();
            Result(dropped)
        });
        drop(job);
        go.send(()).unwrap();
        assert_ne!(on.recv().unwrap(), thread::current().id());
        // The eventfd is written all the same.
        assert_eq!(done.wait().unwrap(), 1);
    }

    #[test]
    fn job_for_which_there_is_no_thread_is_done_at_once() {
        let done = Arc::new(EventFd::new().unwrap());
        let spawn = |_| Err(io::Error::from_raw_os_error(libc::EAGAIN));
        let mut job = Job::start_by(spawn, "ending", Arc::clone(&done), |_| thread::current().id());
        assert_eq!(job.take().unwrap().unwrap(), thread::current().id());
        assert_eq!(done.wait().unwrap(), 1);
    }

    #[test]
    fn job_that_panics_has_an_error_for_a_result() {
        let done = Arc::new(EventFd::new().unwrap());
        let mut job: Job<()> = Job::start("starting", Arc::clone(&done), |_| panic!("a defect"));
        done.wait().unwrap();
        assert!(matches!(job.take(), Some(Err(_))));
    }
}
