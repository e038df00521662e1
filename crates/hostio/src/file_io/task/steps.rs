//! A request that the kernel executes asynchronously, in one step or several.

use std::io;

use rustix::io::Errno;

use super::{Operation, Task, needs_writing};
use crate::IoSlices;
use crate::file_io::request::Durable;
use crate::iovec::{is_interruption, is_transient};

/// How much of a task a step has completed.
#[derive(Debug)]
pub(in crate::file_io) enum Completion {
    /// A part: submit the task again, for the rest or for the next step.
    Partial,
    /// All of it.
    Done(io::Result<()>),
}

impl Task {
    pub(in crate::file_io) fn operation(&self) -> Operation {
        self.operation
    }

    pub(in crate::file_io) fn offset(&self) -> u64 {
        self.offset
    }

    pub(in crate::file_io) fn slices(&self) -> &IoSlices {
        &self.slices
    }

    /// Index of the file in the engine's.
    pub(in crate::file_io) fn index(&self) -> usize {
        self.index
    }

    /// Handles the result of an asynchronous step: a number of bytes, or a negative errno.
    pub(in crate::file_io) fn continue_with(&mut self, answer: i32) -> Completion {
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
        let is_for_run = matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EBUSY));
        match self.operation {
            // The synchronous path has fallbacks for what the file system doesn't support, has the open file that claims a busy
            // block device, and ignores an empty range, which the kernel refuses.
            Operation::Punch(len) | Operation::Zero { len, .. } if is_for_run || len == 0 => {
                Completion::Done(self.run())
            }
            Operation::Zero { .. } if Errno::from_io_error(&error).is_some_and(needs_writing) => {
                Completion::Done(self.run())
            }
            Operation::Sync | Operation::Write(Durable::Yes) if !is_interruption(&error) => {
                Completion::Done(Err(error))
            }
            _ if is_transient(&error) => Completion::Done(self.run()),
            _ => Completion::Done(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use vmm_memory::GuestRam;

    use super::*;
    use crate::file_io::request::IoRequest;
    use crate::{GuestRange, GuestRanges};

    /// A read of 1024 bytes at 4096 of a file of zeros.
    fn reading() -> Task {
        let ram = GuestRam::new(&[0..1 << 20]).unwrap();
        let segments = [GuestRange { gpa: 0, len: 300 }, GuestRange { gpa: 0x1000, len: 724 }];
        let file = tempfile::tempfile().unwrap();
        file.set_len(65536).unwrap();
        let mut task = Task::new(0, 2);
        task.prepare(IoRequest::Read(GuestRanges::new(&ram, &segments)), (0, &Arc::new(file)), 4096).unwrap();
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

    /// It may be the only report of lost data.
    #[test]
    fn sync_or_durable_write_that_fails_with_eagain_is_not_done_again() {
        for operation in [Operation::Sync, Operation::Write(Durable::Yes)] {
            let mut task = reading();
            task.operation = operation;
            let Completion::Done(Err(error)) = task.continue_with(-libc::EAGAIN) else {
                panic!("expected an error")
            };
            assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
        }
    }

    #[test]
    fn interrupted_sync_is_done_again() {
        let mut task = reading();
        task.operation = Operation::Sync;
        assert!(matches!(task.continue_with(-libc::EINTR), Completion::Done(Ok(()))));
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

    /// The errors of a file system without zeroing, and of a block device whose sectors the range doesn't
    /// consist of; the fallback writes.
    #[test]
    fn zeros_that_the_file_system_refuses_are_made_otherwise() {
        for errno in [libc::EOPNOTSUPP, libc::EINVAL] {
            let mut task = reading();
            task.file.as_ref().unwrap().write_all_at(&[7; 200_000], 0).unwrap();
            task.operation = Operation::Zero { len: 100_000, unmap: false, durable: Durable::No };
            assert!(matches!(task.continue_with(-errno), Completion::Done(Ok(()))));
            let mut bytes = vec![1; 100_002];
            task.file.as_ref().unwrap().read_exact_at(&mut bytes, 4095).unwrap();
            assert_eq!((bytes[0], bytes[100_001]), (7, 7));
            assert!(bytes[1..100_001].iter().all(|byte| *byte == 0));
        }
    }

    /// Only zeros have another way.
    #[test]
    fn discard_that_is_not_aligned_is_an_error() {
        let mut task = reading();
        task.operation = Operation::Punch(512);
        let Completion::Done(Err(error)) = task.continue_with(-libc::EINVAL) else {
            panic!("expected an error")
        };
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
