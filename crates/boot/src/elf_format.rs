//! ELF constants and basic structures (System V ABI, "Object Files").

use std::ops::Range;

use crate::reader::{u32_at, u64_at};

/// Magic number of an ELF.
pub(crate) const MAGIC: &[u8] = b"\x7fELF";

/// EI_CLASS: 32-bit and 64-bit. EI_DATA: little-endian. e_type: executable, and position-independent
/// executable.
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
/// Maximum number of program headers. Linux has 5, and hardly any linker script creates more than 20.
pub(crate) const MAX_PROGRAM_HEADERS: u16 = 128;
/// Maximum length of notes per segment in bytes. Linux has 512.
pub(crate) const MAX_NOTES_LEN: u64 = 64 << 10;

/// Size of an ELF's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfClass {
    /// 32 bits.
    Elf32,
    /// 64 bits.
    Elf64,
}

/// A segment to load: `file_len` bytes of the file, followed by zeros up to `mem_len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file.
    pub offset: u64,
    /// Guest-physical address of its first byte.
    pub paddr: u64,
    /// Length in the file, in bytes.
    pub file_len: u64,
    /// Length in memory, in bytes; never 0, never less than `file_len`.
    pub mem_len: u64,
}

impl ElfClass {
    /// Size of an address in bits.
    pub fn bits(self) -> u32 {
        match self {
            Self::Elf32 => 32,
            Self::Elf64 => 64,
        }
    }

    /// Length of the file header in bytes.
    pub(crate) fn header_len(self) -> u64 {
        match self {
            Self::Elf32 => 52,
            Self::Elf64 => 64,
        }
    }

    /// Length of a program header in bytes.
    pub(crate) fn program_header_len(self) -> u16 {
        match self {
            Self::Elf32 => 32,
            Self::Elf64 => 56,
        }
    }

    /// Selects the offset for this class.
    pub(crate) fn offset(self, (elf32, elf64): (usize, usize)) -> usize {
        match self {
            Self::Elf32 => elf32,
            Self::Elf64 => elf64,
        }
    }

    /// Reads the address, offset or length in header field `field`.
    pub(crate) fn word(self, bytes: &[u8], field: (usize, usize)) -> u64 {
        match self {
            Self::Elf32 => u32_at(bytes, field.0).into(),
            Self::Elf64 => u64_at(bytes, field.1),
        }
    }
}

impl Segment {
    /// The guest-physical addresses it occupies.
    pub fn memory(&self) -> Range<u64> {
        self.paddr..self.paddr + self.mem_len
    }

    /// The guest-physical addresses filled from the file.
    pub(crate) fn file_backed(&self) -> Range<u64> {
        self.paddr..self.paddr + self.file_len
    }
}
