//! Copies files into guest memory, for kernels and flat images.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, ReadVolatile, VolatileMemoryError, VolatileSlice};
use vmm_memory::Memory;

use crate::elf_format::Segment;

/// Source of zeros for a BSS.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Errors from copying a whole file.
#[derive(Debug)]
pub(crate) enum FileError {
    /// The file has this length instead of the planned one.
    Changed(u64),
    /// Reading failed, or there is no guest memory.
    Copy(GuestMemoryError),
}

/// Wraps a file so that each volatile read fills the whole slice, unless the file ends.
///
/// One read(2) returns at most 0x7ffff000 bytes (read(2), "NOTES"), and any file system may return less.
/// vm-memory and linux-loader read each region of guest memory with one call, and treat a short read as the
/// end of the file.
pub(crate) struct FullReads<'a, F>(pub(crate) &'a mut F);

impl<F: ReadVolatile> ReadVolatile for FullReads<'_, F> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        slice: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let mut filled = 0;
        while filled < slice.len() {
            match self.0.read_volatile(&mut slice.offset(filled)?) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(VolatileMemoryError::IOError(error)) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl<F: Read> Read for FullReads<'_, F> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl<F: Seek> Seek for FullReads<'_, F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Copies the part of a segment that is in the file.
pub(crate) fn segment<F>(memory: &Memory, segment: &Segment, file: &mut F) -> Result<(), GuestMemoryError>
where
    F: ReadVolatile + Seek,
{
    file.seek(SeekFrom::Start(segment.offset)).map_err(GuestMemoryError::IOError)?;
    let at = GuestAddress(segment.paddr);
    memory.read_exact_volatile_from(at, &mut FullReads(file), segment.file_len as usize)
}

/// Copies the whole file to `range`, which has the file's length.
pub(crate) fn whole_file<F>(memory: &Memory, range: &Range<u64>, file: &mut F) -> Result<(), FileError>
where
    F: ReadVolatile + Seek,
{
    let planned = range.end - range.start;
    let io_error = |error| FileError::Copy(GuestMemoryError::IOError(error));
    let found = file.seek(SeekFrom::End(0)).map_err(io_error)?;
    if found != planned {
        return Err(FileError::Changed(found));
    }
    file.rewind().map_err(io_error)?;
    let at = GuestAddress(range.start);
    memory.read_exact_volatile_from(at, &mut FullReads(file), planned as usize).map_err(FileError::Copy)
}

/// Writes zeros to `range`.
pub(crate) fn zeros(memory: &Memory, range: Range<u64>) -> Result<(), GuestMemoryError> {
    let mut gpa = range.start;
    while gpa < range.end {
        let len = (range.end - gpa).min(ZEROS.len() as u64);
        memory.write_slice(&ZEROS[..len as usize], GuestAddress(gpa))?;
        gpa += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vmm_memory::GuestRam;

    use super::*;
    use crate::testing::ShortReads;

    /// Simulates a file of more than 0x7ffff000 bytes.
    #[test]
    fn file_is_copied_whole_by_short_reads() {
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let ram = GuestRam::new(&[0..0x2000]).unwrap();
        whole_file(ram.memory(), &(0x400..0x400 + 5000), &mut ShortReads::new(&bytes)).unwrap();
        let mut copied = vec![0; 5000];
        ram.memory().read_slice(&mut copied, GuestAddress(0x400)).unwrap();
        assert!(copied == bytes);
    }

    /// A short read in one region must not continue in the next.
    #[test]
    fn file_across_regions_is_copied_whole_by_short_reads() {
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let ram = GuestRam::new(&[0..0x1000, 0x1000..0x3000]).unwrap();
        whole_file(ram.memory(), &(0..5000), &mut ShortReads::new(&bytes)).unwrap();
        let mut copied = vec![0; 5000];
        ram.memory().read_slice(&mut copied, GuestAddress(0)).unwrap();
        assert!(copied == bytes);
    }

    #[test]
    fn file_that_ends_early_fails() {
        let ram = GuestRam::new(&[0..0x1000]).unwrap();
        let segment = Segment { offset: 0, paddr: 0, file_len: 100, mem_len: 100 };
        assert!(super::segment(ram.memory(), &segment, &mut ShortReads::new(&[7; 99])).is_err());
    }
}
