//! Why an ELF can't be booted.

use std::ops::Range;

use crate::elf_format::{ElfClass, MAX_NOTES_LEN, MAX_PROGRAM_HEADERS};

/// Why an ELF can't be booted. `segment` counts the program headers from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// A kernel for i386 that says no way in for a machine without firmware.
    #[error(
        "a 32-bit ELF without a PVH note; one with a multiboot header boots as a flat image (--flat, boot.flat), another \
         needs an x86_64 kernel"
    )]
    NoPvhNote,
    /// EI_CLASS is neither that of x86_64 nor that of i386.
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
    /// Another processor's.
    #[error("an ELF for machine {machine}; an x86_64 kernel (machine 62) is needed")]
    Machine {
        /// e_machine.
        machine: u16,
    },
    /// An object file, a position-independent executable, a core file.
    #[error("e_type {kind}: {name}; an executable linked to fixed addresses (e_type 2) is needed")]
    Type {
        /// e_type.
        kind: u16,
        /// What that is.
        name: &'static str,
    },
    /// Program headers of an unknown shape.
    #[error(
        "e_phentsize {len}: the program headers of a {}-bit ELF have {} bytes",
        class.bits(), class.program_header_len()
    )]
    ProgramHeaderLen {
        /// How long its addresses are.
        class: ElfClass,
        /// e_phentsize.
        len: u16,
    },
    /// None, or more than a kernel has.
    #[error("e_phnum {count}: a kernel has 1 to {MAX_PROGRAM_HEADERS} program headers")]
    ProgramHeaderCount {
        /// e_phnum.
        count: u16,
    },
    /// The table isn't where the header says.
    #[error("e_phoff {offset:#x}: {count} program headers there lie outside the file of {file_len} bytes")]
    ProgramHeaderOffset {
        /// e_phoff.
        offset: u64,
        /// e_phnum.
        count: u16,
        /// Length of the file.
        file_len: u64,
    },
    /// A segment's bytes aren't in the file.
    #[error(
        "program header {segment}: p_offset {offset:#x} + p_filesz {len:#x} is beyond the end of the file at \
         {file_len:#x}"
    )]
    SegmentBeyondFile {
        /// Which program header.
        segment: u16,
        /// p_offset.
        offset: u64,
        /// p_filesz.
        len: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// More bytes in the file than in memory.
    #[error("program header {segment}: p_filesz {file_len:#x} is larger than p_memsz {mem_len:#x}")]
    SegmentMemoryLen {
        /// Which program header.
        segment: u16,
        /// p_filesz.
        file_len: u64,
        /// p_memsz.
        mem_len: u64,
    },
    /// A segment's end is no address.
    #[error("program header {segment}: p_paddr {paddr:#x} + p_memsz {mem_len:#x} is more than 64 bits hold")]
    SegmentWraps {
        /// Which program header.
        segment: u16,
        /// p_paddr.
        paddr: u64,
        /// p_memsz.
        mem_len: u64,
    },
    /// Two segments claim one address.
    #[error("segments overlap in memory: {:#x}..{:#x} and {:#x}..{:#x}", first.start, first.end, second.start, second.end)]
    SegmentsOverlap {
        /// The one that starts lower.
        first: Range<u64>,
        /// The one that starts inside it.
        second: Range<u64>,
    },
    /// Nothing to load.
    #[error("has no segment to load")]
    NoSegment,
    /// More notes than are read.
    #[error("program header {segment}: {len} bytes of notes; at most {MAX_NOTES_LEN} are read")]
    NotesTooLong {
        /// Which program header.
        segment: u16,
        /// p_filesz.
        len: u64,
    },
    /// A note longer than what holds it.
    #[error("program header {segment}: the note at {at:#x} is longer than its segment")]
    NoteTooLong {
        /// Which program header.
        segment: u16,
        /// Offset of the note in the segment.
        at: u64,
    },
    /// A PVH note that holds no address.
    #[error("the PVH note has {len} bytes; 4 or 8 are an address")]
    PvhNoteLen {
        /// Length of its descriptor.
        len: u32,
    },
    /// A PVH note that leads nowhere.
    #[error("the PVH entry {entry:#x} is outside every segment")]
    PvhEntry {
        /// What the note says.
        entry: u64,
    },
    /// No way in.
    #[error("the entry {entry:#x} is outside every segment, and there is no PVH note")]
    Entry {
        /// e_entry.
        entry: u64,
    },
}
