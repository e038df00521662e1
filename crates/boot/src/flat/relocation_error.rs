//! Why a position-independent executable can't be put in its place.

use crate::elf_format::ElfClass;

/// Bytes of dynamic entries that are read: a static executable has some 200.
pub(crate) const MAX_DYNAMIC_LEN: u64 = 64 << 10;
/// R_386_NONE and R_X86_64_NONE.
pub(crate) const NONE: u32 = 0;
/// R_386_RELATIVE and R_X86_64_RELATIVE.
pub(crate) const RELATIVE: u32 = 8;

/// Why a position-independent executable can't be put in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelocationError {
    /// More dynamic entries than are read.
    #[error("the dynamic section has {len} bytes; at most {MAX_DYNAMIC_LEN} are read")]
    DynamicTooLong {
        /// p_filesz.
        len: u64,
    },
    /// A shared library has to be loaded with it.
    #[error("needs shared libraries (DT_NEEDED); link it with -static-pie or -no-pie")]
    Needed,
    /// Relocations in a form that this processor's linkers don't make, or are told not to.
    #[error("has relocations of a kind that isn't applied ({name}); {remedy}")]
    Form {
        /// The dynamic entry.
        name: &'static str,
        /// What to change.
        remedy: &'static str,
    },
    /// The table isn't in the file.
    #[error("the {len:#x} bytes of relocations at {at:#x} lie outside what the file fills of a segment")]
    Outside {
        /// Virtual address of the table.
        at: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// The table ends inside an entry.
    #[error("{len} bytes of relocations are no multiple of {entry_len}, the length of one")]
    Partial {
        /// Length of the table in bytes.
        len: u64,
        /// Length of an entry in bytes.
        entry_len: u64,
    },
    /// Needs a dynamic loader.
    #[error(
        "the relocation at {at:#x} is of type {kind} ({}); only {} is applied, so link it with -static-pie or \
         -no-pie",
        type_name(*class, *kind),
        type_name(*class, RELATIVE)
    )]
    Type {
        /// How long the ELF's addresses are.
        class: ElfClass,
        /// Virtual address of what is changed.
        at: u64,
        /// Its type.
        kind: u32,
    },
    /// Would write outside the image.
    #[error("the relocation at {at:#x} is outside every segment")]
    Target {
        /// Virtual address of what is changed.
        at: u64,
    },
}

fn type_name(class: ElfClass, kind: u32) -> &'static str {
    match (class, kind) {
        (ElfClass::Elf32, 1) => "R_386_32",
        (ElfClass::Elf32, 6) => "R_386_GLOB_DAT",
        (ElfClass::Elf32, 7) => "R_386_JMP_SLOT",
        (ElfClass::Elf32, RELATIVE) => "R_386_RELATIVE",
        (ElfClass::Elf32, 42) => "R_386_IRELATIVE",
        (ElfClass::Elf64, 1) => "R_X86_64_64",
        (ElfClass::Elf64, 6) => "R_X86_64_GLOB_DAT",
        (ElfClass::Elf64, 7) => "R_X86_64_JUMP_SLOT",
        (ElfClass::Elf64, RELATIVE) => "R_X86_64_RELATIVE",
        (ElfClass::Elf64, 10) => "R_X86_64_32",
        (ElfClass::Elf64, 37) => "R_X86_64_IRELATIVE",
        _ => "unknown",
    }
}
