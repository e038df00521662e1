//! A disk whose writes go to a temporary file over a read-only base, so that many guests can share one image.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use vmm_hostio::IoSlices;
use vmm_virtio::Buffers;

use super::image::{Image, Source};
use super::request::QUEUE_SIZE;
use super::stamp::StampedFile;

/// Size of the overlay's blocks in bytes: a host page, which is the block size of most file systems.
pub(super) const BLOCK_LEN: u64 = 4096;

/// The disk. The temporary file has every block at its offset on the disk, so only a bit per block is needed:
/// 32 MiB of memory for a disk of 1 TiB.
pub(super) struct Overlay {
    base: Box<dyn Source>,
    /// As long as the disk, and sparse. It is unnamed, and deleted when its descriptor is closed.
    file: File,
    written: Bits,
    len: u64,
    slices: IoSlices,
}

/// Maximum length of a disk: its bitmap has 2 GiB, which the host allocates on use.
pub(super) const LEN_MAX: u64 = 1 << 46;

impl Overlay {
    /// An empty overlay over the `len` bytes of `base`, at most [`LEN_MAX`]. `file` must be empty.
    pub(super) fn new(base: Box<dyn Source>, file: File, len: u64) -> io::Result<Self> {
        if len > LEN_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        file.set_len(len)?;
        let slices = IoSlices::with_capacity(QUEUE_SIZE.into());
        Ok(Self { base, file, written: Bits::new(len.div_ceil(BLOCK_LEN)), len, slices })
    }

    /// Splits `range` into pieces that are all in the overlay (true) or all in the base.
    fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, bool)> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let is_written = |at: u64| self.written.has(at / BLOCK_LEN);
            let start = at;
            if start >= range.end {
                return None;
            }
            while at < range.end && is_written(at) == is_written(start) {
                at = block_end(at).min(range.end);
            }
            Some((start..at, is_written(start)))
        })
    }

    /// Copies the block at `at` from the base before a part of it is written.
    fn copy_up(&mut self, at: u64) -> io::Result<()> {
        if self.written.has(at / BLOCK_LEN) {
            return Ok(());
        }
        let start = at - at % BLOCK_LEN;
        let mut block = [0; BLOCK_LEN as usize];
        let block = &mut block[..(block_end(at).min(self.len) - start) as usize];
        self.base.read_bytes(start, block)?;
        self.file.write_all_at(block, start)
    }

    /// Copies up the blocks at both ends of `range` that are only partly covered.
    fn copy_up_ends(&mut self, range: &Range<u64>) -> io::Result<()> {
        if !range.start.is_multiple_of(BLOCK_LEN) {
            self.copy_up(range.start)?;
        }
        let reaches_end = range.end == self.len;
        let is_one_block = range.start / BLOCK_LEN == range.end / BLOCK_LEN;
        let is_done = is_one_block && !range.start.is_multiple_of(BLOCK_LEN);
        if !range.end.is_multiple_of(BLOCK_LEN) && !reaches_end && !is_done {
            self.copy_up(range.end)?;
        }
        Ok(())
    }

    /// The blocks that `range` covers entirely; the last block of the disk may be shorter.
    fn whole_blocks(&self, range: &Range<u64>) -> Range<u64> {
        let end = if range.end == self.len { range.end } else { range.end - range.end % BLOCK_LEN };
        let start = range.start.next_multiple_of(BLOCK_LEN);
        start.min(end)..end
    }
}

impl Source for Overlay {
    fn read(&mut self, offset: u64, into: &Buffers<'_>) -> io::Result<()> {
        let mut left = *into;
        let mut at = offset;
        while !left.is_empty() {
            let (run, is_written) =
                self.runs(at..at + left.len()).next().ok_or(io::ErrorKind::InvalidInput)?;
            let (here, rest) = left.split_at(run.end - run.start).ok_or(io::ErrorKind::InvalidInput)?;
            if is_written {
                self.slices.fill(&here)?;
                self.slices.read_at(&self.file, run.start)?;
            } else {
                self.base.read(run.start, &here)?;
            }
            (left, at) = (rest, run.end);
        }
        Ok(())
    }

    fn read_bytes(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while at < into.len() {
            let range = offset + at as u64..offset + into.len() as u64;
            let (run, is_written) = self.runs(range).next().ok_or(io::ErrorKind::InvalidInput)?;
            let here = &mut into[at..][..(run.end - run.start) as usize];
            at += here.len();
            if is_written {
                self.file.read_exact_at(here, run.start)?;
            } else {
                self.base.read_bytes(run.start, here)?;
            }
        }
        Ok(())
    }

    fn files(&self) -> Vec<StampedFile<'_>> {
        self.base.files()
    }
}

impl Image for Overlay {
    fn is_temporary(&self) -> bool {
        true
    }

    fn write(&mut self, offset: u64, from: &Buffers<'_>) -> io::Result<()> {
        let range = offset..offset + from.len();
        if range.is_empty() {
            return Ok(());
        }
        self.copy_up_ends(&range)?;
        self.slices.fill(from)?;
        self.slices.write_at(&self.file, offset, false)?;
        self.written.set(range.start / BLOCK_LEN..range.end.div_ceil(BLOCK_LEN));
        Ok(())
    }

    /// No-op: the data is lost with the monitor anyway, so stable storage would be pointless.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Frees the space of whole blocks that were written; they then read as zeros. Unwritten blocks have no
    /// space to free and keep the base's contents.
    fn discard(&mut self, range: Range<u64>) -> io::Result<()> {
        let whole = self.whole_blocks(&range);
        let mut at = whole.start;
        while at < whole.end {
            let Some((run, is_written)) = self.runs(at..whole.end).next() else { break };
            if is_written {
                punch(&self.file, &run)?;
            }
            at = run.end;
        }
        Ok(())
    }

    fn write_zeroes(&mut self, range: Range<u64>, _unmap: bool) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.copy_up_ends(&range)?;
        punch(&self.file, &range)?;
        self.written.set(range.start / BLOCK_LEN..range.end.div_ceil(BLOCK_LEN));
        Ok(())
    }
}

fn block_end(at: u64) -> u64 {
    (at / BLOCK_LEN + 1) * BLOCK_LEN
}

/// Writes zeros to `range`, as a hole where blocks allow it.
fn punch(file: &File, range: &Range<u64>) -> io::Result<()> {
    let len = range.end - range.start;
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::io::retry_on_intr(|| fallocate(file, mode, range.start, len)) {
        Err(Errno::OPNOTSUPP) => write_zeros(file, range),
        other => Ok(other?),
    }
}

fn write_zeros(file: &File, range: &Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let count = (range.end - at).min(BLOCK_LEN);
        file.write_all_at(&[0; BLOCK_LEN as usize][..count as usize], at)?;
        at += count;
    }
    Ok(())
}

/// A bit per block.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: u64) -> Self {
        Self(vec![0; count.div_ceil(64) as usize])
    }

    fn has(&self, index: u64) -> bool {
        self.0.get((index / 64) as usize).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    fn set(&mut self, range: Range<u64>) {
        for index in range {
            if let Some(word) = self.0.get_mut((index / 64) as usize) {
                *word |= 1 << (index % 64);
            }
        }
    }
}
