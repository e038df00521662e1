//! Disks that aren't simply the bytes of one file. The device's thread does their I/O itself.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use vmm_hostio::IoSlices;
use vmm_virtio::Buffers;

use super::file::DiskFile;
use super::request::QUEUE_SIZE;
use super::stamp::StampedFile;
use crate::failure::StorageFailure;

/// Maximum number of backing files of an image. Each needs a descriptor, and a lookup for data that isn't in the layers
/// above.
pub(super) const BACKING_MAX: usize = 64;

/// A readable disk, addressed by byte offset.
pub(super) trait Source: Send {
    /// Fills `into` from `offset`.
    fn read(&mut self, offset: u64, into: &Buffers<'_>) -> io::Result<()>;

    /// The same for memory of the monitor.
    fn read_bytes(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// The files with its contents, from the one that is written downwards, without temporary ones.
    fn files(&self) -> Vec<StampedFile<'_>>;
}

/// A writable disk. All accesses are whole sectors within it.
pub(super) trait Image: Source {
    /// Writes `from` at `offset`.
    fn write(&mut self, offset: u64, from: &Buffers<'_>) -> io::Result<()>;

    /// Flushes to stable storage.
    fn flush(&mut self) -> io::Result<()>;

    /// Discards `range`, whose contents are no longer needed.
    fn discard(&mut self, range: Range<u64>) -> io::Result<()>;

    /// Makes `range` read as zeros. With `unmap` its space may be freed.
    fn write_zeroes(&mut self, range: Range<u64>, unmap: bool) -> io::Result<()>;

    /// Called about once a second while the guest uses the disk. An image that is marked as being written may
    /// remove the mark if nothing has happened since the last call.
    fn rest(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The guest stops using the disk for now: after a successful flush, the mark is removed.
    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Whether the host has failed so that later flushes fail too, and what that means. Called after each
    /// request.
    fn failure(&self) -> Option<StorageFailure> {
        None
    }

    /// Whether what the guest writes ends with the monitor.
    fn is_temporary(&self) -> bool {
        false
    }

    /// Why a copy of its first file in another directory couldn't be opened, and what to do.
    fn copy_obstacle(&self) -> Option<String> {
        None
    }

    /// A message for the user before the guest writes.
    fn caution(&self) -> Option<String> {
        None
    }
}

/// The bytes of a file, read-only.
#[derive(Debug)]
pub(super) struct RawSource {
    image: DiskFile,
    slices: IoSlices,
}

impl RawSource {
    pub(super) fn new(image: DiskFile) -> Self {
        Self { image, slices: IoSlices::with_capacity(QUEUE_SIZE.into()) }
    }
}

impl Source for RawSource {
    fn read(&mut self, offset: u64, into: &Buffers<'_>) -> io::Result<()> {
        self.slices.fill(into)?;
        self.slices.read_at(&self.image.file, offset)
    }

    fn read_bytes(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.image.file.read_exact_at(into, offset)
    }

    fn files(&self) -> Vec<StampedFile<'_>> {
        vec![StampedFile { file: &self.image.file, path: &self.image.path }]
    }
}
