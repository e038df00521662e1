//! A request in flight.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::request::{Durable, IoRequest};
use crate::iovec::is_transient;
use crate::{GuestBytes, IoSlices};

/// An [`IoRequest`] without its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Write(Durable),
    Sync,
    Punch(u64),
    Zero { len: u64, unmap: bool, durable: Durable },
}

/// Everything the kernel needs to execute a request. It keeps the file open and the memory mapped.
pub(super) struct Task {
    number: u16,
    operation: Operation,
    file: Option<Arc<File>>,
    offset: u64,
    slices: IoSlices,
}

/// How much of a task a step has completed.
#[derive(Debug)]
pub(super) enum Completion {
    /// A part: submit the task again, for the rest or for the next step.
    Partial,
    /// All of it.
    Done(io::Result<()>),
}

impl Task {
    pub(super) fn new(number: u16, pieces: usize) -> Self {
        let slices = IoSlices::with_capacity(pieces);
        Self { number, operation: Operation::Sync, file: None, offset: 0, slices }
    }

    /// The task's number, below the depth.
    pub(super) fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn operation(&self) -> Operation {
        self.operation
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn slices(&self) -> &IoSlices {
        &self.slices
    }

    /// `None` if the task was never prepared.
    pub(super) fn file(&self) -> Option<&Arc<File>> {
        self.file.as_ref()
    }

    pub(super) fn prepare(
        &mut self,
        request: IoRequest<impl GuestBytes>,
        file: &Arc<File>,
        offset: u64,
    ) -> io::Result<()> {
        self.slices.clear();
        self.operation = match request {
            IoRequest::Read(into) => {
                self.slices.fill(&into)?;
                Operation::Read
            }
            IoRequest::Write(from, durable) => {
                self.slices.fill(&from)?;
                Operation::Write(durable)
            }
            IoRequest::Sync => Operation::Sync,
            IoRequest::Punch(len) => Operation::Punch(len),
            IoRequest::Zero { len, unmap, durable } => Operation::Zero { len, unmap, durable },
        };
        (self.file, self.offset) = (Some(Arc::clone(file)), offset);
        Ok(())
    }

    /// Releases file and memory.
    pub(super) fn clear(&mut self) {
        self.slices.clear();
        self.file = None;
    }

    /// Executes the request, or the rest of it, synchronously.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_deref() else { return Ok(()) };
        match self.operation {
            Operation::Read => self.slices.read_at(file, self.offset),
            Operation::Write(durable) => self.slices.write_at(file, self.offset, durable == Durable::Yes),
            Operation::Sync => file.sync_data(),
            Operation::Punch(len) => punch(file, self.offset, len),
            Operation::Zero { len, unmap, durable } => {
                zero(file, self.offset, len, unmap)?;
                if durable == Durable::Yes { file.sync_data() } else { Ok(()) }
            }
        }
    }

    /// Handles the result of an asynchronous step: a number of bytes, or a negative errno.
    pub(super) fn continue_with(&mut self, answer: i32) -> Completion {
        let Ok(count) = u64::try_from(answer) else {
            return self.failed(io::Error::from_raw_os_error(-answer));
        };
        match self.operation {
            Operation::Read | Operation::Write(_) => {
                if count == 0 && !self.slices.is_empty() {
                    return Completion::Done(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                self.slices.advance(count);
                self.offset += count;
                if self.slices.is_empty() { Completion::Done(Ok(())) } else { Completion::Partial }
            }
            Operation::Zero { durable: Durable::Yes, .. } => {
                self.operation = Operation::Sync;
                Completion::Partial
            }
            Operation::Sync | Operation::Punch(_) | Operation::Zero { .. } => Completion::Done(Ok(())),
        }
    }

    fn failed(&mut self, error: io::Error) -> Completion {
        let is_unsupported = error.raw_os_error() == Some(libc::EOPNOTSUPP);
        match self.operation {
            // The synchronous path has fallbacks for what the file system doesn't support, and ignores an
            // empty range, which the kernel refuses.
            Operation::Punch(len) | Operation::Zero { len, .. } if is_unsupported || len == 0 => {
                Completion::Done(self.run())
            }
            _ if is_transient(&error) => Completion::Done(self.run()),
            _ => Completion::Done(Err(error)),
        }
    }
}

/// fallocate(2) modes for deallocating and zeroing. They work on files and on block devices, where the kernel
/// turns them into a discard or a write of zeros. The ioctl BLKDISCARD would need unsafe code.
pub(super) const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
pub(super) const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);

fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match allocate(file, PUNCH, offset, len) {
        // A discard is a hint.
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

fn zero(file: &File, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
    let modes: &[FallocateFlags] = if unmap { &[PUNCH, ZERO] } else { &[ZERO] };
    for mode in modes {
        match allocate(file, *mode, offset, len) {
            Err(Errno::OPNOTSUPP) => {}
            other => return Ok(other?),
        }
    }
    write_zeros(file, offset, len)
}

fn allocate(file: &File, mode: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
    if len == 0 {
        // fallocate(2) refuses an empty range.
        return Ok(());
    }
    rustix::io::retry_on_intr(|| fallocate(file, mode, offset, len))
}

/// A source of zeros, aligned for O_DIRECT on any disk.
#[repr(align(4096))]
struct Zeros([u8; 64 << 10]);

static ZEROS: Zeros = Zeros([0; 64 << 10]);

fn write_zeros(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let count = (len - at).min(ZEROS.0.len() as u64);
        file.write_all_at(&ZEROS.0[..count as usize], offset + at)?;
        at += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vmm_memory::GuestRam;

    use super::*;
    use crate::{GuestRange, GuestRanges};

    /// A read of 1024 bytes at 4096 of a file of zeros.
    fn reading() -> Task {
        let ram = GuestRam::new(&[0..1 << 20]).unwrap();
        let segments = [GuestRange { gpa: 0, len: 300 }, GuestRange { gpa: 0x1000, len: 724 }];
        let file = tempfile::tempfile().unwrap();
        file.set_len(65536).unwrap();
        let mut task = Task::new(0, 2);
        task.prepare(IoRequest::Read(GuestRanges::new(&ram, &segments)), &Arc::new(file), 4096).unwrap();
        task
    }

    #[test]
    fn short_read_goes_on_where_it_stopped() {
        let mut task = reading();
        assert!(matches!(task.continue_with(512), Completion::Partial));
        assert_eq!((task.offset(), task.slices().len()), (4608, 512));
        assert!(matches!(task.continue_with(512), Completion::Done(Ok(()))));
    }

    #[test]
    fn read_of_nothing_is_the_end_of_the_file() {
        let Completion::Done(Err(error)) = reading().continue_with(0) else { panic!("expected an error") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn interrupted_read_is_done_again() {
        assert!(matches!(reading().continue_with(-libc::EINTR), Completion::Done(Ok(()))));
        assert!(matches!(reading().continue_with(-libc::EAGAIN), Completion::Done(Ok(()))));
    }

    #[test]
    fn other_errors_are_the_answer() {
        let Completion::Done(Err(error)) = reading().continue_with(-libc::EIO) else {
            panic!("expected an error")
        };
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }

    #[test]
    fn durable_zeros_are_synced_after_they_are_there() {
        let mut task = reading();
        task.operation = Operation::Zero { len: 512, unmap: false, durable: Durable::Yes };
        assert!(matches!(task.continue_with(0), Completion::Partial));
        assert_eq!(task.operation(), Operation::Sync);
        assert!(matches!(task.continue_with(0), Completion::Done(Ok(()))));
    }

    /// The error of a file system without zeroing; the fallback writes.
    #[test]
    fn zeros_that_the_file_system_refuses_are_made_otherwise() {
        let mut task = reading();
        task.file.as_ref().unwrap().write_all_at(&[7; 200_000], 0).unwrap();
        task.operation = Operation::Zero { len: 100_000, unmap: false, durable: Durable::No };
        assert!(matches!(task.continue_with(-libc::EOPNOTSUPP), Completion::Done(Ok(()))));
        let mut bytes = vec![1; 100_002];
        task.file.as_ref().unwrap().read_exact_at(&mut bytes, 4095).unwrap();
        assert_eq!((bytes[0], bytes[100_001]), (7, 7));
        assert!(bytes[1..100_001].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn zeros_by_writing_reach_exactly_as_far_as_asked() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 200_000], 0).unwrap();
        write_zeros(&file, 1, 150_000).unwrap();
        let mut bytes = vec![1; 150_002];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!((bytes[0], bytes[150_001]), (7, 7));
        assert!(bytes[1..150_001].iter().all(|byte| *byte == 0));
    }
}
