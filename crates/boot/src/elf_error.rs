//! Errors in ELF kernels.

use std::ops::Range;

use crate::elf_format::{ElfClass, MAX_NOTES_LEN, MAX_PROGRAM_HEADERS};

/// Why an ELF can't be booted. `segment` is the index of the program header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// A 32-bit ELF without a PVH note, the only entry supported for i386.
    #[error(
        "a 32-bit ELF without a PVH note; one with a multiboot header boots as a flat image (--flat, boot.flat), another \
         needs an x86_64 kernel"
    )]
    NoPvhNote,
    /// The class and machine are neither x86_64 nor i386.
    #[error("an ELF of class {class} for machine {machine}; an x86_64 kernel is needed")]
    Class {
        /// EI_CLASS.
        class: u8,
        /// e_machine.
        machine: u16,
    },
    /// EI_DATA isn't little endian.
    #[error("a big-endian ELF (data {data}); an x86_64 kernel is needed")]
    Endianness {
        /// EI_DATA.
        data: u8,
    },
    /// The ELF is for another processor.
    #[error("an ELF for machine {machine}; an x86_64 kernel (machine 62) is needed")]
    Machine {
        /// e_machine.
        machine: u16,
    },
    /// The ELF isn't an executable with fixed addresses.
    #[error("e_type {kind}: {name}; an executable linked to fixed addresses (e_type 2) is needed")]
    Type {
        /// e_type.
        kind: u16,
        /// Name of the type.
        name: &'static str,
    },
    /// The size of program headers doesn't match the class.
    #[error(
        "e_phentsize {len}: the program headers of a {}-bit ELF have {} bytes",
        class.bits(), class.program_header_len()
    )]
    ProgramHeaderLen {
        /// Class of the ELF.
        class: ElfClass,
        /// e_phentsize.
        len: u16,
    },
    /// The number of program headers isn't supported.
    #[error("e_phnum {count}: a kernel has 1 to {MAX_PROGRAM_HEADERS} program headers")]
    ProgramHeaderCount {
        /// e_phnum.
        count: u16,
    },
    /// The program headers aren't inside the file.
    #[error("e_phoff {offset:#x}: {count} program headers there lie outside the file of {file_len} bytes")]
    ProgramHeaderOffset {
        /// e_phoff.
        offset: u64,
        /// e_phnum.
        count: u16,
        /// Length of the file in bytes.
        file_len: u64,
    },
    /// A segment isn't inside the file.
    #[error(
        "program header {segment}: p_offset {offset:#x} + p_filesz {len:#x} is beyond the end of the file at \
         {file_len:#x}"
    )]
    SegmentBeyondFile {
        /// Index of the program header.
        segment: u16,
        /// p_offset.
        offset: u64,
        /// p_filesz.
        len: u64,
        /// Length of the file in bytes.
        file_len: u64,
    },
    /// A segment is larger in the file than in memory.
    #[error("program header {segment}: p_filesz {file_len:#x} is larger than p_memsz {mem_len:#x}")]
    SegmentMemoryLen {
        /// Index of the program header.
        segment: u16,
        /// p_filesz.
        file_len: u64,
        /// p_memsz.
        mem_len: u64,
    },
    /// The end of a segment overflows.
    #[error("program header {segment}: p_paddr {paddr:#x} + p_memsz {mem_len:#x} is more than 64 bits hold")]
    SegmentWraps {
        /// Index of the program header.
        segment: u16,
        /// p_paddr.
        paddr: u64,
        /// p_memsz.
        mem_len: u64,
    },
    /// Two segments overlap.
    #[error("segments overlap in memory: {:#x}..{:#x} and {:#x}..{:#x}", first.start, first.end, second.start, second.end)]
    SegmentsOverlap {
        /// The segment that starts lower.
        first: Range<u64>,
        /// The segment that starts inside it.
        second: Range<u64>,
    },
    /// There is no segment to load.
    #[error("has no segment to load")]
    NoSegment,
    /// A segment of notes is too long.
    #[error("program header {segment}: {len} bytes of notes; at most {MAX_NOTES_LEN} are read")]
    NotesTooLong {
        /// Index of the program header.
        segment: u16,
        /// p_filesz.
        len: u64,
    },
    /// A note exceeds its segment.
    #[error("program header {segment}: the note at {at:#x} is longer than its segment")]
    NoteTooLong {
        /// Index of the program header.
        segment: u16,
        /// Offset of the note in the segment.
        at: u64,
    },
    /// The PVH note doesn't contain an address.
    #[error("the PVH note has {len} bytes; 4 or 8 are an address")]
    PvhNoteLen {
        /// Length of its descriptor in bytes.
        len: u32,
    },
    /// The PVH entry isn't inside a segment.
    #[error("the PVH entry {entry:#x} is outside every segment")]
    PvhEntry {
        /// The entry in the note.
        entry: u64,
    },
    /// The entry isn't inside a segment, and there is no PVH note.
    #[error("the entry {entry:#x} is outside every segment, and there is no PVH note")]
    Entry {
        /// e_entry.
        entry: u64,
    },
}
