//! The numbers of an ELF and what it is made of (System V ABI, "Object Files").

use std::ops::Range;

use crate::reader::{u32_at, u64_at};

/// First bytes of an ELF.
pub(crate) const MAGIC: &[u8] = b"\x7fELF";

/// EI_CLASS: 32 and 64 bits. EI_DATA: little endian. e_type: an executable, and one that can lie anywhere.
pub(crate) const ELFCLASS32: u8 = 1;
pub(crate) const ELFCLASS64: u8 = 2;
pub(crate) const ELFDATA2LSB: u8 = 1;
pub(crate) const ET_EXEC: u16 = 2;
pub(crate) const ET_DYN: u16 = 3;
/// e_machine.
pub(crate) const EM_386: u16 = 3;
pub(crate) const EM_ARM: u16 = 40;
pub(crate) const EM_X86_64: u16 = 62;
pub(crate) const EM_AARCH64: u16 = 183;
pub(crate) const EM_RISCV: u16 = 243;
/// p_type.
pub(crate) const PT_LOAD: u32 = 1;
pub(crate) const PT_DYNAMIC: u32 = 2;
pub(crate) const PT_INTERP: u32 = 3;
pub(crate) const PT_NOTE: u32 = 4;
/// Program headers that are read: Linux has 5, and hardly any linker script makes more than 20.
pub(crate) const MAX_PROGRAM_HEADERS: u16 = 128;
/// Bytes of notes that are read per segment: Linux has 512.
pub(crate) const MAX_NOTES_LEN: u64 = 64 << 10;

/// How long an ELF's addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfClass {
    /// 32 bits.
    Elf32,
    /// 64 bits.
    Elf64,
}

/// A piece of an ELF that is loaded: `file_len` bytes of the file, then zeros up to `mem_len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts in the file.
    pub offset: u64,
    /// Guest-physical address of its first byte.
    pub paddr: u64,
    /// Bytes from the file.
    pub file_len: u64,
    /// Bytes in memory; never 0, never less than `file_len`.
    pub mem_len: u64,
}

impl ElfClass {
    /// Length of an address, in bits.
    pub fn bits(self) -> u32 {
        match self {
            Self::Elf32 => 32,
            Self::Elf64 => 64,
        }
    }

    /// Length of the file's header.
    pub(crate) fn header_len(self) -> u64 {
        match self {
            Self::Elf32 => 52,
            Self::Elf64 => 64,
        }
    }

    /// Length of a program header.
    pub(crate) fn program_header_len(self) -> u16 {
        match self {
            Self::Elf32 => 32,
            Self::Elf64 => 56,
        }
    }

    /// The one of two offsets that this class has.
    pub(crate) fn offset(self, (elf32, elf64): (usize, usize)) -> usize {
        match self {
            Self::Elf32 => elf32,
            Self::Elf64 => elf64,
        }
    }

    /// The address, offset or length at `field` of a header.
    pub(crate) fn word(self, bytes: &[u8], field: (usize, usize)) -> u64 {
        match self {
            Self::Elf32 => u32_at(bytes, field.0).into(),
            Self::Elf64 => u64_at(bytes, field.1),
        }
    }
}

impl Segment {
    /// The addresses that it occupies.
    pub fn memory(&self) -> Range<u64> {
        self.paddr..self.paddr + self.mem_len
    }

    /// The addresses that are filled from the file.
    pub(crate) fn file_backed(&self) -> Range<u64> {
        self.paddr..self.paddr + self.file_len
    }
}
