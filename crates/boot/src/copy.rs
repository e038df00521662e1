//! Copying into guest memory, for the loaders of kernels and of flat images alike.

use std::io::{Seek, SeekFrom};
use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, ReadVolatile};
use vmm_memory::Memory;

use crate::elf_format::Segment;

/// Zeros for a BSS.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Why a whole file wasn't copied.
#[derive(Debug)]
pub(crate) enum FileError {
    /// It has this length, and another was planned.
    Changed(u64),
    /// Reading it failed, or there is no memory.
    Copy(GuestMemoryError),
}

/// Copies what the file has of a segment.
pub(crate) fn segment<F>(memory: &Memory, segment: &Segment, file: &mut F) -> Result<(), GuestMemoryError>
where
    F: ReadVolatile + Seek,
{
    file.seek(SeekFrom::Start(segment.offset)).map_err(GuestMemoryError::IOError)?;
    memory.read_exact_volatile_from(GuestAddress(segment.paddr), file, segment.file_len as usize)
}

/// Copies all of the file to `range`, whose length is the file's.
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
    memory.read_exact_volatile_from(at, file, planned as usize).map_err(FileError::Copy)
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
