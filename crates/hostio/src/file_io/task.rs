//! A request in flight.

#[cfg(feature = "io-uring")]
pub(super) mod steps;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::request::{Durable, IoRequest};
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
    /// For what is executed synchronously. `None` if the task is idle.
    file: Option<Arc<File>>,
    /// The index in the engine's files of this one, or of another open file of it.
    index: usize,
    offset: u64,
    slices: IoSlices,
}

impl Task {
    pub(super) fn new(number: u16, pieces: usize) -> Self {
        let slices = IoSlices::with_capacity(pieces);
        Self { number, operation: Operation::Sync, file: None, index: 0, offset: 0, slices }
    }

    /// The task's number, below the depth.
    pub(super) fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn prepare(
        &mut self,
        request: IoRequest<impl GuestBytes>,
        (index, file): (usize, &Arc<File>),
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
        (self.file, self.index, self.offset) = (Some(Arc::clone(file)), index, offset);
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
            Err(error) if needs_writing(error) => {}
            other => return Ok(other?),
        }
    }
    write_zeros(file, offset, len)
}

/// Whether fallocate(2) refuses to zero a range that can be written: it doesn't support the mode, or the range
/// isn't aligned to the sectors of a block device (Linux, block/fops.c, `blkdev_fallocate`).
pub(super) fn needs_writing(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::INVAL)
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
    use super::*;

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
