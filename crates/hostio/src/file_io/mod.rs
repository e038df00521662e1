//! Asynchronous positioned I/O between files and guest memory.

#[cfg(not(feature = "io-uring"))]
mod no_uring;
mod request;
mod system_calls;
mod task;
mod threads;
#[cfg(feature = "io-uring")]
mod uring;

use std::fs::File;
use std::io;
use std::sync::Arc;

use vmm_bus::EventFd;

#[cfg(not(feature = "io-uring"))]
use self::no_uring::Uring;
pub use self::request::{Durable, IoRequest};
pub use self::system_calls::{ENGINE_CALLS, FILE_IO_CALLS};
use self::task::Task;
use self::threads::Threads;
#[cfg(feature = "io-uring")]
use self::uring::Uring;
use crate::GuestBytes;

/// The kernel interface used for I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoMethod {
    /// io_uring, or threads if it isn't available.
    #[default]
    Auto,
    /// io_uring only.
    Uring,
    /// A small pool of blocking threads.
    Threads,
}

/// Executes [`IoRequest`]s concurrently and returns each with the `T` that was submitted with it. It doesn't
/// allocate per request, except when a request has more pieces than its slot has had before.
///
/// ```text
/// submit(request, T) ... dispatch --> kernel or threads --> `ready` is readable --> completed: T, result
/// ```
///
/// Dropping it waits for requests in flight, so that none accesses guest memory afterwards.
pub struct Engine<T> {
    backend: Backend,
    /// Why io_uring isn't used, if it was tried.
    refusal: Option<io::Error>,
    ready: Arc<EventFd>,
    files: Box<[Arc<File>]>,
    /// See [`with_claimed`](Self::with_claimed).
    claimed: Option<Arc<File>>,
    /// Unused tasks.
    idle: Vec<Task>,
    /// The caller's values by task number; `None` if the task is idle.
    contexts: Vec<Option<T>>,
}

enum Backend {
    Uring(Box<Uring>),
    Threads(Threads),
}

/// Initial capacity of a task in pieces of memory: 64 KiB in single pages. A task with more pieces grows, up
/// to the 254 that a chain of 256 descriptors can have, and keeps that capacity. Allocating it for all tasks
/// up front would take half a MiB per disk.
const PIECES: usize = 16;

impl<T> Engine<T> {
    /// Creates an engine for up to `depth` concurrent requests on `files`, at least one. It can't access others, and keeps these open.
    /// Its threads, if any, are named after `name`.
    ///
    /// io_uring closes them asynchronously, up to some 50 ms after the engine or the process has ended. So they shouldn't hold locks:
    /// the next user of the file would be refused until then.
    ///
    /// # Errors
    /// io_uring isn't available and `method` requires it, or the host is out of descriptors.
    pub fn new(method: IoMethod, depth: u16, name: &str, files: &[Arc<File>]) -> io::Result<Self> {
        let ready = Arc::new(EventFd::new()?);
        let uring = match method {
            IoMethod::Threads => None,
            IoMethod::Auto | IoMethod::Uring => Some(Uring::new(depth, files, &ready)),
        };
        let threads = || Backend::Threads(Threads::new(depth, Arc::clone(&ready), name));
        let (backend, refusal) = choose(method, uring, threads)?;
        let idle = (0..depth).map(|number| Task::new(number, PIECES)).collect();
        let contexts = (0..depth).map(|_| None).collect();
        Ok(Self { backend, refusal, ready, files: files.into(), claimed: None, idle, contexts })
    }

    /// Adds the open file that has claimed the block device that the other ones are (O_EXCL). Linux refuses to deallocate or zero what
    /// has dirty pages through any other (EBUSY; block/bdev.c, truncate_bdev_range), so such requests go through this one then, not
    /// through io_uring, which would keep the claim for a while after the end.
    #[must_use]
    pub fn with_claimed(mut self, file: Arc<File>) -> Self {
        self.claimed = Some(file);
        self
    }

    /// The interface in use, and why it isn't io_uring if that was tried.
    pub fn describe(&self) -> String {
        match (&self.backend, &self.refusal) {
            (Backend::Uring(_), _) => "io_uring".to_owned(),
            (Backend::Threads(_), None) => "threads".to_owned(),
            (Backend::Threads(_), Some(error)) => format!("threads, because io_uring is refused: {error}"),
        }
    }

    /// A non-blocking eventfd, readable when a request is [`completed`](Self::completed), for epoll.
    pub fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// Whether it can't take another request now.
    pub fn is_full(&self) -> bool {
        self.idle.is_empty()
    }

    /// Number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.contexts.len() - self.idle.len()
    }

    /// Submits a request for the bytes at `offset` of a file, given by its index in those passed to [`new`](Self::new). It may not
    /// start before the next [`dispatch`](Self::dispatch).
    ///
    /// # Errors
    /// The engine [is full](Self::is_full), there is no such file, or the request has too many pieces: `with` is returned.
    pub fn submit(
        &mut self,
        request: IoRequest<impl GuestBytes>,
        file: usize,
        offset: u64,
        with: T,
    ) -> Result<(), T> {
        let Some(open) = self.files.get(file) else { return Err(with) };
        let Some(mut task) = self.idle.pop() else { return Err(with) };
        let open = match (&request, &self.claimed) {
            (IoRequest::Punch(_) | IoRequest::Zero { .. }, Some(claimed)) => claimed,
            _ => open,
        };
        if task.prepare(request, (file, open), offset).is_err() {
            self.idle.push(task);
            return Err(with);
        }
        self.contexts[usize::from(task.number())] = Some(with);
        match &mut self.backend {
            Backend::Uring(uring) => uring.submit(task),
            Backend::Threads(threads) => threads.submit(task),
        }
        Ok(())
    }

    /// Starts submitted requests.
    pub fn dispatch(&mut self) {
        if let Backend::Uring(uring) = &mut self.backend
            && uring.dispatch().is_err()
        {
            // The kernel is temporarily out of memory: make the device call again.
            let _ = self.ready.write(1);
        }
    }

    /// Returns a completed request.
    pub fn completed(&mut self) -> Option<(T, io::Result<()>)> {
        let done = match &mut self.backend {
            Backend::Uring(uring) => uring.completed(),
            Backend::Threads(threads) => threads.completed(),
        };
        let (mut task, result) = done?;
        task.clear();
        let with = self.contexts[usize::from(task.number())].take();
        self.idle.push(task);
        with.map(|with| (with, result))
    }

    /// Clears [`ready`](Self::ready) until another request completes. Call [`completed`](Self::completed)
    /// after this, not before.
    pub fn acknowledge(&self) {
        // Non-blocking. The count doesn't matter.
        let _ = self.ready.read();
    }

    /// Waits until a request is complete, if any is in flight.
    pub fn wait(&mut self) {
        match &mut self.backend {
            Backend::Uring(uring) => uring.wait(),
            Backend::Threads(threads) => threads.wait(),
        }
    }
}

/// Selects the backend, and says why it isn't io_uring if that was tried.
fn choose(
    method: IoMethod,
    uring: Option<io::Result<Uring>>,
    threads: impl FnOnce() -> Backend,
) -> io::Result<(Backend, Option<io::Error>)> {
    match (method, uring) {
        (IoMethod::Uring, Some(Err(error))) => Err(error),
        (_, Some(Ok(uring))) => Ok((Backend::Uring(Box::new(uring)), None)),
        (_, Some(Err(error))) => Ok((threads(), Some(error))),
        (_, None) => Ok((threads(), None)),
    }
}

impl<T> std::fmt::Debug for Engine<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("backend", &self.describe()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
