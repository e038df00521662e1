//! ELF headers of both classes (System V ABI, "Object Files").

use std::io::{self, Read, Seek};
use std::ops::Range;

use crate::elf_error::ElfError;
use crate::elf_format::{ElfClass, MAGIC, MAX_PROGRAM_HEADERS, Segment};
use crate::reader::{Reader, u16_at, u32_at};

/// Offsets in the file header that are the same for both classes.
const EI_CLASS: usize = 4;
const EI_DATA: usize = 5;
const E_TYPE: usize = 16;
const E_MACHINE: usize = 18;
const IDENTITY_LEN: usize = 20;
/// Offsets in the file header: 32-bit, 64-bit.
const E_ENTRY: (usize, usize) = (24, 24);
const E_PHOFF: (usize, usize) = (28, 32);
const E_PHENTSIZE: (usize, usize) = (42, 54);
const E_PHNUM: (usize, usize) = (44, 56);
/// Offsets in a program header: 32-bit, 64-bit.
const P_TYPE: usize = 0;
const P_OFFSET: (usize, usize) = (4, 8);
const P_VADDR: (usize, usize) = (8, 16);
const P_PADDR: (usize, usize) = (12, 24);
const P_FILESZ: (usize, usize) = (16, 32);
const P_MEMSZ: (usize, usize) = (20, 40);
const P_ALIGN: (usize, usize) = (28, 48);

/// Whether the file has the magic number of an ELF.
pub(crate) fn is_elf<F: Read + Seek>(reader: &mut Reader<'_, F>) -> io::Result<bool> {
    let start: [u8; MAGIC.len()] = reader.padded(0)?;
    Ok(start == *MAGIC)
}

/// The fields that don't depend on the class.
pub(crate) struct Identity {
    pub(crate) class: u8,
    pub(crate) data: u8,
    pub(crate) kind: u16,
    pub(crate) machine: u16,
}

/// The fields of the file header that a loader needs.
pub(crate) struct Header {
    class: ElfClass,
    pub(crate) entry: u64,
    offset: u64,
    entry_len: u16,
    count: u16,
}

/// A program header; `index` is its index in the table.
pub(crate) struct ProgramHeader {
    pub(crate) index: u16,
    pub(crate) kind: u32,
    pub(crate) offset: u64,
    pub(crate) vaddr: u64,
    pub(crate) paddr: u64,
    pub(crate) file_len: u64,
    pub(crate) mem_len: u64,
    pub(crate) align: u64,
}

impl Identity {
    /// Reads the fields; beyond the end of the file they are 0.
    pub(crate) fn read<F: Read + Seek>(reader: &mut Reader<'_, F>) -> io::Result<Self> {
        let bytes: [u8; IDENTITY_LEN] = reader.padded(0)?;
        Ok(Self {
            class: bytes[EI_CLASS],
            data: bytes[EI_DATA],
            kind: u16_at(&bytes, E_TYPE),
            machine: u16_at(&bytes, E_MACHINE),
        })
    }
}

impl Header {
    /// Reads the header. The file must have at least [`ElfClass::header_len`] bytes.
    pub(crate) fn read<F: Read + Seek>(class: ElfClass, reader: &mut Reader<'_, F>) -> io::Result<Self> {
        let bytes: [u8; 64] = reader.padded(0)?;
        Ok(Self {
            class,
            entry: class.word(&bytes, E_ENTRY),
            offset: class.word(&bytes, E_PHOFF),
            entry_len: u16_at(&bytes, class.offset(E_PHENTSIZE)),
            count: u16_at(&bytes, class.offset(E_PHNUM)),
        })
    }

    /// The indices of the program headers, after checking that the table is inside the file.
    pub(crate) fn program_headers(&self, file_len: u64) -> Result<Range<u16>, ElfError> {
        let &Self { class, offset, entry_len: len, count, .. } = self;
        if len != class.program_header_len() {
            return Err(ElfError::ProgramHeaderLen { class, len });
        }
        if count == 0 || count > MAX_PROGRAM_HEADERS {
            return Err(ElfError::ProgramHeaderCount { count });
        }
        let end = offset.checked_add(u64::from(count) * u64::from(len));
        if offset < class.header_len() || end.is_none_or(|end| end > file_len) {
            return Err(ElfError::ProgramHeaderOffset { offset, count, file_len });
        }
        Ok(0..count)
    }

    /// Reads program header `index`, which must be in [`Header::program_headers`].
    pub(crate) fn program_header<F: Read + Seek>(
        &self,
        index: u16,
        reader: &mut Reader<'_, F>,
    ) -> io::Result<ProgramHeader> {
        let class = self.class;
        // A 32-bit header is shorter: the rest of the buffer is the next header, or 0.
        let at = self.offset + u64::from(index) * u64::from(class.program_header_len());
        let bytes: [u8; 56] = reader.padded(at)?;
        Ok(ProgramHeader {
            index,
            kind: u32_at(&bytes, P_TYPE),
            offset: class.word(&bytes, P_OFFSET),
            vaddr: class.word(&bytes, P_VADDR),
            paddr: class.word(&bytes, P_PADDR),
            file_len: class.word(&bytes, P_FILESZ),
            mem_len: class.word(&bytes, P_MEMSZ),
            align: class.word(&bytes, P_ALIGN),
        })
    }
}

impl ProgramHeader {
    /// Checks that the contents are inside a file of `file_len` bytes.
    pub(crate) fn check_file_range(&self, file_len: u64) -> Result<(), ElfError> {
        let &Self { index: segment, offset, file_len: len, .. } = self;
        if offset.checked_add(len).is_none_or(|end| end > file_len) {
            return Err(ElfError::SegmentBeyondFile { segment, offset, len, file_len });
        }
        Ok(())
    }

    /// The segment of a PT_LOAD header, at its physical address; `None` if it is empty.
    pub(crate) fn segment(&self, file_len: u64) -> Result<Option<Segment>, ElfError> {
        self.check_file_range(file_len)?;
        let &Self { index: segment, offset, paddr, file_len, mem_len, .. } = self;
        if file_len > mem_len {
            return Err(ElfError::SegmentMemoryLen { segment, file_len, mem_len });
        }
        if paddr.checked_add(mem_len).is_none() {
            return Err(ElfError::SegmentWraps { segment, paddr, mem_len });
        }
        Ok((mem_len > 0).then_some(Segment { offset, paddr, file_len, mem_len }))
    }
}

/// Sorts segments by address, and refuses overlapping ones.
pub(crate) fn in_order(mut segments: Vec<Segment>) -> Result<Vec<Segment>, ElfError> {
    segments.sort_by_key(|s| s.paddr);
    let overlap = segments.windows(2).find(|pair| pair[0].memory().end > pair[1].paddr);
    if let Some(pair) = overlap {
        return Err(ElfError::SegmentsOverlap { first: pair[0].memory(), second: pair[1].memory() });
    }
    if segments.is_empty() {
        return Err(ElfError::NoSegment);
    }
    Ok(segments)
}
