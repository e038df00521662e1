//! Positioned I/O between files and guest memory, that a device doesn't wait for.

mod request;
mod task;
mod threads;
mod uring;

use std::fs::File;
use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub use self::request::{Durable, IoRequest};
use self::task::Task;
use self::threads::Threads;
use self::uring::Uring;
use crate::GuestBytes;

/// By which of the kernel's ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoMethod {
    /// io_uring, or threads where that is refused.
    #[default]
    Auto,
    /// io_uring or not at all.
    Uring,
    /// A few threads that wait.
    Threads,
}

/// Carries out [`IoRequest`]s, many at a time, and gives each back with the `T` that came with it. It allocates nothing
/// for any of them, but for one that consists of more pieces than its place had before.
///
/// ```text
///  submit(request, T) ... dispatch --> kernel or threads --> `ready` can be read --> completed: T, result
/// ```
///
/// Dropping it waits for what it has: then nothing of it touches guest memory any more.
pub struct Engine<T> {
    way: Way,
    /// Why it isn't the other.
    refusal: Option<io::Error>,
    ready: Arc<EventFd>,
    /// For tasks to come.
    idle: Vec<Task>,
    /// By the number of the task; `None` while there is no such.
    kept: Vec<Option<T>>,
}

enum Way {
    Uring(Box<Uring>),
    Threads(Threads),
}

/// Pieces of memory that a task has room for at first: 64 KiB by single pages. A task that is given more grows, up to the 254
/// that a chain of 256 descriptors can have, and stays so: room for that in all of them would be half a MiB for each disk.
const PIECES: usize = 16;

impl<T> Engine<T> {
    /// For at most `depth` requests at a time. Its threads, if it has any, are called after `name`.
    ///
    /// # Errors
    /// io_uring is refused where nothing else would do, or the host is out of descriptors.
    pub fn new(method: IoMethod, depth: u16, name: &str) -> io::Result<Self> {
        let ready = Arc::new(EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
        let uring = match method {
            IoMethod::Threads => None,
            IoMethod::Auto | IoMethod::Uring => Some(Uring::new(depth, &ready)),
        };
        let threads = || Way::Threads(Threads::new(depth, Arc::clone(&ready), name));
        let (way, refusal) = choose(method, uring, threads)?;
        let idle = (0..depth).map(|number| Task::new(number, PIECES)).collect();
        Ok(Self { way, refusal, ready, idle, kept: (0..depth).map(|_| None).collect() })
    }

    /// Which way it goes, in words, and why if it isn't the first choice.
    pub fn describe(&self) -> String {
        match (&self.way, &self.refusal) {
            (Way::Uring(_), _) => "io_uring".to_owned(),
            (Way::Threads(_), None) => "threads".to_owned(),
            (Way::Threads(_), Some(error)) => format!("threads, as io_uring is refused: {error}"),
        }
    }

    /// What can be read when something is [`completed`](Self::completed), for epoll.
    pub fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// Whether it takes no request now.
    pub fn is_full(&self) -> bool {
        self.idle.is_empty()
    }

    /// Requests that it has.
    pub fn in_flight(&self) -> usize {
        self.kept.len() - self.idle.len()
    }

    /// Takes a request for the bytes of `file` from `offset` on. It may start only with the next
    /// [`dispatch`](Self::dispatch).
    ///
    /// # Errors
    /// It [is full](Self::is_full), or the bytes consist of too many pieces: `with` comes back.
    pub fn submit(
        &mut self,
        request: IoRequest<impl GuestBytes>,
        file: &Arc<File>,
        offset: u64,
        with: T,
    ) -> Result<(), T> {
        let Some(mut task) = self.idle.pop() else { return Err(with) };
        if task.prepare(request, file, offset).is_err() {
            self.idle.push(task);
            return Err(with);
        }
        self.kept[usize::from(task.number())] = Some(with);
        match &mut self.way {
            Way::Uring(uring) => uring.submit(task),
            Way::Threads(threads) => threads.submit(task),
        }
        Ok(())
    }

    /// Starts what was taken.
    pub fn dispatch(&mut self) {
        if let Way::Uring(uring) = &mut self.way
            && uring.dispatch().is_err()
        {
            // The kernel is short of memory for the moment: the device comes again.
            let _ = self.ready.write(1);
        }
    }

    /// Something that is complete.
    pub fn completed(&mut self) -> Option<(T, io::Result<()>)> {
        let done = match &mut self.way {
            Way::Uring(uring) => uring.completed(),
            Way::Threads(threads) => threads.completed(),
        };
        let (mut task, result) = done?;
        task.clear();
        let with = self.kept[usize::from(task.number())].take();
        self.idle.push(task);
        with.map(|with| (with, result))
    }

    /// Makes [`ready`](Self::ready) unreadable, until something else is complete. Look for what is
    /// [`completed`](Self::completed) afterwards, not before.
    pub fn acknowledge(&self) {
        // Non-blocking; how often doesn't matter.
        let _ = self.ready.read();
    }

    /// Waits until something is complete, if there is anything to wait for.
    pub fn wait(&mut self) {
        match &mut self.way {
            Way::Uring(uring) => uring.wait(),
            Way::Threads(threads) => threads.wait(),
        }
    }
}

/// The way by which it goes, and why not the other.
fn choose(
    method: IoMethod,
    uring: Option<io::Result<Uring>>,
    threads: impl FnOnce() -> Way,
) -> io::Result<(Way, Option<io::Error>)> {
    match (method, uring) {
        (IoMethod::Uring, Some(Err(error))) => Err(error),
        (_, Some(Ok(uring))) => Ok((Way::Uring(Box::new(uring)), None)),
        (_, Some(Err(error))) => Ok((threads(), Some(error))),
        (_, None) => Ok((threads(), None)),
    }
}

impl<T> std::fmt::Debug for Engine<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("way", &self.describe()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
