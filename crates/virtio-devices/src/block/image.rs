//! A disk that is more than the bytes of one file. The device's thread reads and writes it itself.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use vmm_hostio::IoSlices;
use vmm_virtio::Buffers;

use super::file::DiskFile;
use super::request::QUEUE_SIZE;

/// What can be read, by bytes from its start.
pub(super) trait Source: Send {
    /// Fills `into` from `offset` on.
    fn read(&mut self, offset: u64, into: &Buffers<'_>) -> io::Result<()>;

    /// The same for memory of the monitor's.
    fn read_bytes(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// What can be written too. Everything lies inside it, and is whole sectors.
pub(super) trait Image: Source {
    /// Writes `from` to `offset`.
    fn write(&mut self, offset: u64, from: &Buffers<'_>) -> io::Result<()>;

    /// Brings to stable storage what was written.
    fn flush(&mut self) -> io::Result<()>;

    /// What is in `range` isn't needed any more.
    fn discard(&mut self, range: Range<u64>) -> io::Result<()>;

    /// Lets `range` read as zeros. With `unmap` its room may be given up.
    fn write_zeroes(&mut self, range: Range<u64>, unmap: bool) -> io::Result<()>;

    /// Called about once a second while the guest uses it. An image that says of itself that somebody writes it may say that it
    /// is whole again, if nothing happened since the last time.
    fn rest(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The guest uses it no more, for now: after a flush that went well it is whole again.
    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What the user should know of an image that has failed; once.
    fn complaint(&mut self) -> Option<String> {
        None
    }

    /// What the user should know before the guest writes.
    fn caution(&self) -> Option<String> {
        None
    }
}

/// The bytes of a file, to read.
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
}
