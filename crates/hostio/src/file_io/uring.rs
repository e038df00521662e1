//! I/O through io_uring(7).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::register::Restriction;
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use vmm_bus::EventFd;

use super::request::Durable;
use super::task::steps::Completion;
use super::task::{Operation, PUNCH, Task, ZERO};

/// The operations of [`entry`], all in Linux 5.6.
const OPCODES: [u8; 4] =
    [opcode::Readv::CODE, opcode::Writev::CODE, opcode::Fsync::CODE, opcode::Fallocate::CODE];

/// IORING_UNREGISTER_FILES (include/uapi/linux/io_uring.h).
const UNREGISTER_FILES: u8 = 3;
/// IORING_REGISTER_ENABLE_RINGS (include/uapi/linux/io_uring.h).
const ENABLE_RINGS: u8 = 12;

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
    /// Creates a ring for `depth` tasks on `files`, which signals `ready` when one completes.
    ///
    /// # Errors
    /// The kernel has no io_uring or one that is too old, or a sysctl or a seccomp filter forbids it.
    pub(super) fn new(depth: u16, files: &[Arc<File>], ready: &Arc<EventFd>) -> io::Result<Self> {
        let ring = disabled(depth)?;
        let numbers: Vec<_> = files.iter().map(|file| file.as_raw_fd()).collect();
        ring.submitter().register_files(&numbers)?;
        ring.submitter().register_eventfd(ready.as_raw_fd())?;
        restrict(&ring)?;
        ring.submitter().register_enable_rings()?;
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
        // of guest RAM, which the list keeps mapped, and to which no Rust reference exists. The ring holds the
        // file.
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

/// A ring that executes nothing before it is enabled.
fn disabled(depth: u16) -> io::Result<IoUring> {
    // A child that is forked later, such as a path keeper, would keep the ring after the monitor's end. The
    // completion queue has twice as many entries, so never fewer than there are tasks.
    IoUring::builder().setup_r_disabled().dontfork().build(depth.into()).map_err(too_old)
}

/// Limits the ring to [`OPCODES`] on registered files, for good.
fn restrict(ring: &IoUring) -> io::Result<()> {
    let [read, write, sync, allocate] = OPCODES.map(Restriction::sqe_op);
    let mut restrictions = [
        read,
        write,
        sync,
        allocate,
        Restriction::sqe_flags_required(squeue::Flags::FIXED_FILE.bits()),
        // Only gives up files. Without any such entry, a kernel may leave io_uring_register(2) unrestricted, and without this one
        // it closes the files some time after the ring: too late for who detaches or unmounts what is below them.
        Restriction::register_op(UNREGISTER_FILES),
        Restriction::register_op(ENABLE_RINGS),
    ];
    ring.submitter().register_restrictions(&mut restrictions).map_err(too_old)
}

/// Explains EINVAL, the answer to what the kernel doesn't have.
fn too_old(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EINVAL) => {
            io::Error::new(io::ErrorKind::Unsupported, "the kernel can't restrict it, Linux 5.10 can")
        }
        _ => error,
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
        // Now, not some time after the ring is closed. An error only means that.
        let _ = self.ring.submitter().unregister_files();
    }
}

/// How many times the kernel may refuse to wait before the tasks are leaked. It refuses only if out of
/// memory.
const ATTEMPTS: u32 = 1000;

/// The submission queue entry of a task.
fn entry(task: &Task) -> squeue::Entry {
    let fd = Fixed(task.index() as u32);
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::RawFd;
    use std::sync::atomic::AtomicU8;

    use io_uring::types::Fd;

    use super::*;

    /// Enabled, with one file, of 512 sevens.
    fn uring() -> (Uring, Arc<File>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 512]).unwrap();
        let file = Arc::new(file);
        (Uring::new(4, &[Arc::clone(&file)], &Arc::new(EventFd::new().unwrap())).unwrap(), file)
    }

    /// The result of an entry that is submitted as it is. It may use a list of one piece of 512 bytes.
    fn execute(uring: &mut Uring, entry: impl FnOnce(*const libc::iovec) -> squeue::Entry) -> i32 {
        let mut bytes = [0_u8; 512];
        let piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let entry = entry(&raw const piece);
        // SAFETY: what it points to is `piece`, `bytes` or static, and this function waits for its completion.
        unsafe { uring.ring.submission().push(&entry) }.unwrap();
        uring.ring.submit_and_wait(1).unwrap();
        uring.ring.completion().next().unwrap().result()
    }

    #[test]
    fn operation_on_a_registered_file_is_executed() {
        let (mut uring, _file) = uring();
        assert_eq!(execute(&mut uring, |piece| opcode::Readv::new(Fixed(0), piece, 1).build()), 512);
    }

    /// It reads as the listed one does, so nothing else refuses it.
    #[test]
    fn operation_that_is_not_listed_is_refused() {
        let (mut uring, _file) = uring();
        static BYTES: [AtomicU8; 16] = [const { AtomicU8::new(0) }; 16];
        let into = BYTES.as_ptr().cast_mut().cast();
        let answer = execute(&mut uring, |_| opcode::Read::new(Fixed(0), into, 16).build());
        assert_eq!(answer, -libc::EACCES);
    }

    #[test]
    fn operation_that_registers_a_file_is_refused() {
        static STDIN: RawFd = 0;
        let (mut uring, _file) = uring();
        let answer = execute(&mut uring, |_| opcode::FilesUpdate::new(&raw const STDIN, 1).build());
        assert_eq!(answer, -libc::EACCES);
    }

    #[test]
    fn file_by_its_descriptor_is_refused() {
        let (mut uring, file) = uring();
        let fd = Fd(file.as_raw_fd());
        assert_eq!(execute(&mut uring, |piece| opcode::Readv::new(fd, piece, 1).build()), -libc::EACCES);
    }

    #[test]
    fn file_that_is_not_registered_is_refused() {
        let (mut uring, _file) = uring();
        assert_eq!(execute(&mut uring, |piece| opcode::Readv::new(Fixed(1), piece, 1).build()), -libc::EBADF);
    }

    #[test]
    fn flag_that_is_not_required_is_refused() {
        let (mut uring, _file) = uring();
        let answer = execute(&mut uring, |piece| {
            opcode::Readv::new(Fixed(0), piece, 1).build().flags(squeue::Flags::ASYNC)
        });
        assert_eq!(answer, -libc::EACCES);
    }

    #[test]
    fn further_registration_is_refused() {
        let (uring, file) = uring();
        let submitter = uring.ring.submitter();
        let errno = |answer: io::Result<()>| answer.unwrap_err().raw_os_error();
        assert_eq!(
            errno(submitter.register_files_update(0, &[file.as_raw_fd()]).map(|_| ())),
            Some(libc::EACCES)
        );
        assert_eq!(errno(submitter.unregister_eventfd()), Some(libc::EACCES));
        assert_eq!(errno(submitter.register_personality().map(|_| ())), Some(libc::EACCES));
        assert_eq!(errno(submitter.register_restrictions(&mut [])), Some(libc::EACCES));
        assert_eq!(errno(submitter.register_enable_rings()), Some(libc::EBADFD));
        // What only gives up files isn't.
        submitter.unregister_files().unwrap();
        assert_eq!(errno(submitter.register_files(&[file.as_raw_fd()])), Some(libc::EACCES));
    }

    #[test]
    fn kernel_without_restrictions_is_said_to_be_too_old() {
        let error = too_old(io::Error::from_raw_os_error(libc::EINVAL));
        assert_eq!(error.to_string(), "the kernel can't restrict it, Linux 5.10 can");
        assert_eq!(too_old(io::Error::from_raw_os_error(libc::EPERM)).raw_os_error(), Some(libc::EPERM));
    }
}
