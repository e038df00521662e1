//! The thread that does the supervisor's jobs.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A thread's stack, in bytes. The config's parser needs the most of it. The default of 2 MiB would take a whole huge page on
/// hosts with transparent huge pages set to "always".
const STACK_LEN: usize = 1 << 20;

/// Work that may block. It drops its [`Busy`] when the thread is free again.
pub(crate) type Work = Box<dyn FnOnce(Busy) + Send>;

/// Starts a thread: [`spawn`], except in tests.
type Spawn = fn(&str, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

/// A thread that waits for work until this is dropped. It exists from the start to the end, because at the end there may be none to
/// be had: the limit on threads can be reached at any time (RLIMIT_NPROC counts those of all the user's processes), and the main
/// thread mustn't do what may block.
///
/// Work that has been abandoned may occupy the thread forever. Further work then has threads of its own.
#[derive(Debug)]
pub(crate) struct Worker {
    queue: WorkQueue,
    spawn: Spawn,
    thread: Option<JoinHandle<()>>,
}

/// The queue of a [`Worker`]'s thread.
#[derive(Clone, Debug)]
pub(crate) struct WorkQueue {
    /// `None` ends the thread.
    work: Sender<Option<(Work, Busy)>>,
    /// The work that is queued or being done.
    pending: Arc<AtomicUsize>,
}

/// The claim of one piece of work on the worker's thread.
#[derive(Debug)]
pub(crate) struct Busy(Option<Arc<AtomicUsize>>);

/// The thread that does a piece of work.
#[derive(Debug)]
pub(crate) enum Assigned {
    /// The worker's.
    Worker,
    /// One of its own.
    Thread(JoinHandle<()>),
    /// The worker's, after the work that occupies it: this error prevents another thread.
    Queued(io::Error),
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The host is out of threads.
    pub(crate) fn new() -> io::Result<Self> {
        let (queue, thread) = start()?;
        Ok(Self { queue, spawn, thread: Some(thread) })
    }

    /// Ends the thread, when it has done its work, until [`restart`](Self::restart).
    pub(crate) fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.queue.work.send(None);
            let _ = thread.join();
        }
    }

    /// Starts the thread again.
    ///
    /// # Errors
    /// The host is out of threads.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        let (queue, thread) = start()?;
        (self.queue, self.thread) = (queue, Some(thread));
        Ok(())
    }

    /// Has `work` done, on the worker's thread if that is free.
    pub(crate) fn assign(&self, work: Work) -> Assigned {
        if self.thread.is_some() && self.queue.is_free() {
            self.queue.push(work);
            return Assigned::Worker;
        }
        // A failed spawn drops its closure, so the work is kept here as well.
        let kept = Arc::new(Mutex::new(Some(work)));
        let take = |kept: &Mutex<Option<Work>>| kept.lock().ok().and_then(|mut kept| kept.take());
        let theirs = Arc::clone(&kept);
        let body = move || {
            if let Some(work) = take(&theirs) {
                work(Busy(None));
            }
        };
        match (self.spawn)("job", Box::new(body)) {
            Ok(thread) => Assigned::Thread(thread),
            Err(error) => {
                if let Some(work) = take(&kept) {
                    self.queue.push(work);
                }
                Assigned::Queued(error)
            }
        }
    }

    pub(crate) fn queue(&self) -> &WorkQueue {
        &self.queue
    }

    /// As on a host that is out of threads.
    #[cfg(test)]
    pub(crate) fn without_threads(&mut self) {
        self.spawn = |_, _| Err(io::Error::from_raw_os_error(libc::EAGAIN));
    }
}

impl WorkQueue {
    fn is_free(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0
    }

    /// Queues `work`.
    pub(crate) fn push(&self, work: Work) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        // Fails only while the thread is stopped, when there is no work.
        let _ = self.work.send(Some((work, Busy(Some(Arc::clone(&self.pending))))));
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(pending) = &self.0 {
            pending.fetch_sub(1, Ordering::Release);
        }
    }
}

fn start() -> io::Result<(WorkQueue, JoinHandle<()>)> {
    let (work, queued) = channel::<Option<(Work, Busy)>>();
    let body = move || {
        while let Ok(Some((work, busy))) = queued.recv() {
            // A panic has been reported by the panic hook. A job returns it as its result.
            let _ = catch_unwind(AssertUnwindSafe(|| work(busy)));
        }
    };
    let thread = spawn("jobs", Box::new(body))?;
    Ok((WorkQueue { work, pending: Arc::default() }, thread))
}

fn spawn(name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_LEN).spawn(body)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Assigns work that sends its thread's name and then waits for the sender to be dropped.
    fn assign(worker: &Worker) -> (Assigned, Receiver<Option<String>>, Sender<()>) {
        let (names, name) = channel();
        let (release, released) = channel::<()>();
        let work = move |busy| {
            names.send(thread::current().name().map(str::to_owned)).unwrap();
            let _ = released.recv();
            drop((busy, names));
        };
        (worker.assign(Box::new(work)), name, release)
    }

    #[test]
    fn work_is_done_on_the_workers_thread_as_long_as_that_is_free() {
        let worker = Worker::new().unwrap();
        (0..3).for_each(|_| {
            let (assigned, name, release) = assign(&worker);
            assert!(matches!(assigned, Assigned::Worker), "{assigned:?}");
            assert_eq!(name.recv_timeout(DEADLINE).unwrap().as_deref(), Some("jobs"));
            drop(release);
            assert_eq!(name.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
        });
    }

    #[test]
    fn work_after_work_that_hangs_has_its_own_thread() {
        let worker = Worker::new().unwrap();
        let (_, _name, _hangs) = assign(&worker);
        let (assigned, name, _release) = assign(&worker);
        assert!(matches!(assigned, Assigned::Thread(_)), "{assigned:?}");
        assert_eq!(name.recv_timeout(DEADLINE).unwrap().as_deref(), Some("job"));
    }

    #[test]
    fn work_for_which_there_is_no_thread_is_done_after_the_work_that_hangs() {
        let mut worker = Worker::new().unwrap();
        worker.without_threads();
        let (_, _name, hangs) = assign(&worker);
        let (assigned, name, _release) = assign(&worker);
        assert!(matches!(assigned, Assigned::Queued(_)), "{assigned:?}");
        assert_eq!(name.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout));
        drop(hangs);
        assert_eq!(name.recv_timeout(DEADLINE).unwrap().as_deref(), Some("jobs"));
    }

    #[test]
    fn thread_that_has_stopped_starts_again() {
        let mut worker = Worker::new().unwrap();
        let (_, name, release) = assign(&worker);
        name.recv_timeout(DEADLINE).unwrap();
        drop(release);
        worker.stop();
        assert_eq!(name.try_recv(), Err(TryRecvError::Disconnected), "its work was done first");
        worker.restart().unwrap();
        let (assigned, name, _release) = assign(&worker);
        assert!(matches!(assigned, Assigned::Worker), "{assigned:?}");
        assert_eq!(name.recv_timeout(DEADLINE).unwrap().as_deref(), Some("jobs"));
    }

    #[test]
    fn work_that_panics_leaves_the_thread_to_further_work() {
        let worker = Worker::new().unwrap();
        let (panicked, ended) = channel::<()>();
        worker.assign(Box::new(move |_busy| {
            let _panicked = panicked;
            panic!("a defect");
        }));
        assert_eq!(ended.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
        let (_, name, _release) = assign(&worker);
        assert!(name.recv_timeout(DEADLINE).is_ok());
    }
}
