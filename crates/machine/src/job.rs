//! Work that may block on a file, on another thread than its caller's.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use vmm_bus::EventFd;

use crate::worker::{Assigned, Busy, WorkQueue, Worker};

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

/// Work on a [`Worker`]'s thread, or on one of its own. Dropping this abandons the work: its result is then dropped on that thread,
/// never on the caller's, which mustn't block.
#[derive(Debug)]
pub(crate) struct Job<T: Send + 'static> {
    outcome: Arc<Mutex<JobOutcome<T>>>,
    progress: Progress,
    assigned: Assigned,
    queue: WorkQueue,
}

/// The work's result, from when it is available until it is taken.
#[derive(Debug)]
enum JobOutcome<T> {
    Pending,
    Done(thread::Result<T>),
    /// It was taken, or nobody waits for it.
    Closed,
}

impl<T: Send + 'static> Job<T> {
    /// Starts `work`, and writes `done` when the result is available. Never runs it on this thread: if the worker's thread is busy
    /// with a job that was abandoned, and the host can't create another, the job is [delayed](Self::delayed_by) until it is free.
    pub(crate) fn start(
        worker: &Worker,
        what: &'static str,
        done: Arc<EventFd>,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Self {
        let progress = Progress::new(what);
        let outcome = Arc::new(Mutex::new(JobOutcome::Pending));
        let (their_progress, theirs) = (progress.clone(), Arc::clone(&outcome));
        let body = move |busy| {
            let worked = catch_unwind(AssertUnwindSafe(|| work(&their_progress)));
            publish(&theirs, worked, busy);
            // Can't be full: the counter would have to reach 2^64 - 1.
            let _ = done.write(1);
        };
        let assigned = worker.assign(Box::new(body));
        Self { outcome, progress, assigned, queue: worker.queue().clone() }
    }

    /// The result, if the work is done; an error if it panicked. Must not be called again after it has returned a result.
    pub(crate) fn take(&mut self) -> Option<thread::Result<T>> {
        let mut outcome = lock(&self.outcome);
        let result = match std::mem::replace(&mut *outcome, JobOutcome::Closed) {
            JobOutcome::Done(result) => result,
            other => {
                *outcome = other;
                return None;
            }
        };
        drop(outcome);
        if let Assigned::Thread(thread) = std::mem::replace(&mut self.assigned, Assigned::Worker) {
            // It is about to exit. Joined, it no longer counts as a thread of the process.
            let _ = thread.join();
        }
        Some(result)
    }

    /// The error that prevented a thread for it, if it waits for a job that was abandoned.
    pub(crate) fn delayed_by(&self) -> Option<&io::Error> {
        match &self.assigned {
            Assigned::Queued(error) => Some(error),
            Assigned::Worker | Assigned::Thread(_) => None,
        }
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }
}

impl<T: Send + 'static> Drop for Job<T> {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut *lock(&self.outcome), JobOutcome::Closed);
        if let JobOutcome::Done(late) = outcome {
            self.queue.push(Box::new(move |_busy| drop(late)));
        }
    }
}

/// Makes a result available, or drops it if nobody waits for it. The thread is free before the next job can be started.
fn publish<T>(outcome: &Mutex<JobOutcome<T>>, worked: thread::Result<T>, busy: Busy) {
    let mut outcome = lock(outcome);
    if matches!(*outcome, JobOutcome::Pending) {
        drop(busy);
        *outcome = JobOutcome::Done(worked);
    } else {
        drop(outcome);
        // Busy until then: this may block.
        drop(worked);
        drop(busy);
    }
}

fn lock<T>(outcome: &Mutex<JobOutcome<T>>) -> MutexGuard<'_, JobOutcome<T>> {
    outcome.lock().expect("no panic while it is held")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

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
    struct Result(Sender<thread::ThreadId>);

    impl Drop for Result {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    /// A job that waits for the sender, and whose result is a [`Result`].
    fn start(worker: &Worker, done: &Arc<EventFd>) -> (Job<Result>, Sender<()>, Receiver<thread::ThreadId>) {
        let (go, gone) = channel::<()>();
        let (dropped, on) = channel();
        let job = Job::start(worker, "starting", Arc::clone(done), move |_| {
            gone.recv().unwrap();
            Result(dropped)
        });
        (job, go, on)
    }

    #[test]
    fn result_that_nobody_waits_for_is_dropped_on_its_own_thread() {
        let worker = Worker::new().unwrap();
        let done = Arc::new(EventFd::new().unwrap());
        let (job, go, on) = start(&worker, &done);
        drop(job);
        go.send(()).unwrap();
        assert_ne!(on.recv().unwrap(), thread::current().id());
        // The eventfd is written all the same.
        assert_eq!(done.wait().unwrap(), 1);
    }

    #[test]
    fn result_that_is_not_taken_is_dropped_on_the_jobs_thread() {
        let worker = Worker::new().unwrap();
        let done = Arc::new(EventFd::new().unwrap());
        let (job, go, on) = start(&worker, &done);
        go.send(()).unwrap();
        done.wait().unwrap();
        drop(job);
        assert_ne!(on.recv().unwrap(), thread::current().id());
    }

    #[test]
    fn jobs_that_end_share_a_thread() {
        let worker = Worker::new().unwrap();
        let done = Arc::new(EventFd::new().unwrap());
        let on = || {
            let mut job = Job::start(&worker, "starting", Arc::clone(&done), |_| thread::current().id());
            done.wait().unwrap();
            job.take().unwrap().unwrap()
        };
        let first = on();
        (0..100).for_each(|_| assert_eq!(on(), first));
    }

    #[test]
    fn job_for_which_there_is_no_thread_waits_for_the_one_before() {
        let mut worker = Worker::new().unwrap();
        worker.without_threads();
        let done = Arc::new(EventFd::new().unwrap());
        let (hangs, go, _on) = start(&worker, &done);
        assert!(hangs.delayed_by().is_none());
        drop(hangs);
        let mut job = Job::start(&worker, "ending", Arc::clone(&done), |_| thread::current().id());
        assert!(job.delayed_by().is_some() && job.take().is_none());
        go.send(()).unwrap();
        let mut written = 0;
        while written < 2 {
            written += done.wait().unwrap();
        }
        assert_ne!(job.take().unwrap().unwrap(), thread::current().id());
    }

    #[test]
    fn job_that_panics_has_an_error_for_a_result() {
        let worker = Worker::new().unwrap();
        let done = Arc::new(EventFd::new().unwrap());
        let mut job: Job<()> = Job::start(&worker, "starting", Arc::clone(&done), |_| panic!("a defect"));
        done.wait().unwrap();
        assert!(matches!(job.take(), Some(Err(_))));
    }
}
