//! Work that may have to wait for a file, on a thread of its own.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use vmm_sys_util::eventfd::EventFd;

/// Stack of the thread, in bytes. A config's parser is the deepest that runs on it. The default of 2 MiB would be backed by a
/// whole huge page where the host gives those to everybody.
const STACK_LEN: usize = 1 << 20;

/// What a job is waiting for, in words for the user.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The job as a whole, a gerund phrase such as "starting".
    job: &'static str,
    steps: Mutex<Vec<String>>,
}

impl Progress {
    fn new(job: &'static str) -> Self {
        Self(Arc::new(Shared { job, steps: Mutex::default() }))
    }

    /// The job does this until the result is dropped. `what` is a gerund phrase: "reading the kernel".
    pub fn begin(&self, what: String) -> ProgressStep {
        self.steps().push(what.clone());
        ProgressStep { progress: self.clone(), what }
    }

    fn steps(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.steps.lock().expect("no panic while it is held")
    }

    /// All that has begun and isn't done.
    pub(crate) fn text(&self) -> String {
        let steps = self.steps();
        if steps.is_empty() { self.0.job.to_owned() } else { steps.join(", ") }
    }
}

/// Something that has begun. Dropped when it is done.
#[derive(Debug)]
#[must_use = "it is done when this is dropped"]
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

/// Work on a thread of its own. Dropping this leaves it to itself: what comes of it then is dropped on that thread.
#[derive(Debug)]
pub(crate) struct Job<T> {
    result: Receiver<thread::Result<T>>,
    progress: Progress,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Job<T> {
    /// Begins `work`, and writes `done` when there is a result. Where the host gives no thread, the work is done here and now: an end
    /// is worth waiting for.
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
            // Dropped here if nobody waits.
            drop(sender.send(worked));
            // Can't be full: the counter would have to reach 2^64 - 1.
            let _ = done.write(1);
        };
        // What isn't spawned is dropped, unless it is kept.
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

    /// What came of it, if it is done: an error if it panicked. To be called until there is a result, and not after that.
    pub(crate) fn take(&mut self) -> Option<thread::Result<T>> {
        let result = self.result.try_recv().ok()?;
        if let Some(thread) = self.thread.take() {
            // It has nothing left to do, but is counted as a thread until it has ended.
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

    /// Says so when it is dropped.
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
        let done = Arc::new(EventFd::new(0).unwrap());
        let job = Job::start("starting", Arc::clone(&done), move |_| {
            gone.recv().unwrap();
            Result(dropped)
        });
        drop(job);
        go.send(()).unwrap();
        assert_ne!(on.recv().unwrap(), thread::current().id());
        // Whoever waits in epoll hears of it all the same.
        assert_eq!(done.read().unwrap(), 1);
    }

    #[test]
    fn job_for_which_there_is_no_thread_is_done_at_once() {
        let done = Arc::new(EventFd::new(0).unwrap());
        let spawn = |_| Err(io::Error::from_raw_os_error(libc::EAGAIN));
        let mut job = Job::start_by(spawn, "ending", Arc::clone(&done), |_| thread::current().id());
        assert_eq!(job.take().unwrap().unwrap(), thread::current().id());
        assert_eq!(done.read().unwrap(), 1);
    }

    #[test]
    fn job_that_panics_has_an_error_for_a_result() {
        let done = Arc::new(EventFd::new(0).unwrap());
        let mut job: Job<()> = Job::start("starting", Arc::clone(&done), |_| panic!("a defect"));
        done.read().unwrap();
        assert!(matches!(job.take(), Some(Err(_))));
    }
}
