//! I/O through io_uring(7).
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, Probe, opcode, squeue};
use vmm_bus::EventFd;

use super::request::Durable;
use super::task::steps::Completion;
use super::task::{Operation, PUNCH, Task, ZERO};

/// Required opcodes, all in Linux 5.6.
const OPCODES: [u8; 4] =
    [opcode::Readv::CODE, opcode::Writev::CODE, opcode::Fsync::CODE, opcode::Fallocate::CODE];

/// A ring, and the tasks that the kernel is executing.
///
/// A submitted task stays in `tasks`, unchanged, until its completion has been taken from the ring. All
/// unsafe code here relies on that, and no code outside this file can break it: `tasks` is private, and
/// dropping waits.
pub(super) struct Uring {
    ring: IoUring,
    /// By task number.
    tasks: Vec<Option<Task>>,
    in_flight: usize,
    /// Kept open for the kernel, which writes to it.
    _ready: Arc<EventFd>,
}

impl Uring {
    /// Creates a ring for `depth` tasks, which signals `ready` when one completes.
    ///
    /// # Errors
    /// The kernel has no io_uring or one that is too old, or a sysctl or a seccomp filter forbids it.
    pub(super) fn new(depth: u16, ready: &Arc<EventFd>) -> io::Result<Self> {
        // A child that is forked later, such as a path keeper, would keep the ring after the monitor's end.
        // The completion queue has twice as many entries, so never fewer than there are tasks.
        let ring = IoUring::builder().dontfork().build(depth.into())?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !OPCODES.iter().all(|code| probe.is_supported(*code)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        ring.submitter().register_eventfd(ready.as_raw_fd())?;
        let tasks = (0..depth).map(|_| None).collect();
        Ok(Self { ring, tasks, in_flight: 0, _ready: Arc::clone(ready) })
    }

    /// Queues a task. The kernel sees it at the next [`dispatch`](Self::dispatch).
    pub(super) fn submit(&mut self, task: Task) {
        let place = &mut self.tasks[usize::from(task.number())];
        assert!(place.is_none(), "a number is that of one task");
        let entry = entry(place.insert(task));
        self.in_flight += 1;
        // SAFETY: what the entry points to must stay valid until completion. The list of pieces is on the
        // heap, owned by the task, which stays in `tasks` until `completed` takes its completion, and which
        // nothing replaces (see the assertion) or changes in the meantime. Each piece is inside the mapping
        // of guest RAM, which the list keeps mapped, and to which no Rust reference exists. The file is open:
        // the task holds an `Arc` of it.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the queue has an entry for each task");
    }

    /// Submits queued entries to the kernel.
    ///
    /// # Errors
    /// The kernel can't take them now. They stay queued for the next call.
    pub(super) fn dispatch(&mut self) -> io::Result<()> {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => {
                    other?;
                }
            }
        }
        Ok(())
    }

    /// Returns a completed task.
    pub(super) fn completed(&mut self) -> Option<(Task, io::Result<()>)> {
        loop {
            let completion = self.ring.completion().next()?;
            let number = completion.user_data() as usize;
            // The kernel returns only numbers that it was given.
            let mut task = self.tasks.get_mut(number)?.take()?;
            self.in_flight -= 1;
            match task.continue_with(completion.result()) {
                Completion::Done(result) => return Some((task, result)),
                Completion::Partial => {
                    self.submit(task);
                    // If this fails, the device's next dispatch submits it.
                    let _ = self.dispatch();
                }
            }
        }
    }

    pub(super) fn wait(&mut self) {
        if self.in_flight > 0 {
            // If interrupted, the caller waits again.
            let _ = self.ring.submit_and_wait(1);
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let mut attempts = 0;
        while self.in_flight > 0 {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => attempts += 1,
                _ => attempts = 0,
            }
            while self.completed().is_some() {}
            if attempts > ATTEMPTS {
                // The kernel may still write to their memory, so it must stay mapped forever.
                mem::forget(mem::take(&mut self.tasks));
                return;
            }
        }
    }
}

/// How many times the kernel may refuse to wait before the tasks are leaked. It refuses only if out of
/// memory.
const ATTEMPTS: u32 = 1000;

/// The submission queue entry of a task.
fn entry(task: &Task) -> squeue::Entry {
    let fd = Fd(task.file().map_or(-1, |file| file.as_raw_fd()));
    let (pieces, count) = task.slices().raw();
    let (count, offset) = (count as u32, task.offset());
    let entry = match task.operation() {
        Operation::Read => opcode::Readv::new(fd, pieces, count).offset(offset).build(),
        Operation::Write(durable) => {
            let flags = if durable == Durable::Yes { libc::RWF_DSYNC } else { 0 };
            opcode::Writev::new(fd, pieces, count).offset(offset).rw_flags(flags).build()
        }
        Operation::Sync => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
        Operation::Punch(len) => {
            opcode::Fallocate::new(fd, len).offset(offset).mode(PUNCH.bits() as i32).build()
        }
        Operation::Zero { len, unmap, .. } => {
            let mode = if unmap { PUNCH } else { ZERO };
            opcode::Fallocate::new(fd, len).offset(offset).mode(mode.bits() as i32).build()
        }
    };
    entry.user_data(task.number().into())
}
