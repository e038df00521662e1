//! Errors in relocations.

use crate::elf_format::ElfClass;

/// Maximum length of the dynamic section in bytes. A static executable has about 200.
pub(crate) const MAX_DYNAMIC_LEN: u64 = 64 << 10;
/// R_386_NONE and R_X86_64_NONE.
pub(crate) const NONE: u32 = 0;
/// R_386_RELATIVE and R_X86_64_RELATIVE.
pub(crate) const RELATIVE: u32 = 8;

/// Why a position-independent executable can't be relocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelocationError {
    /// The dynamic section is too long.
    #[error("the dynamic section has {len} bytes; at most {MAX_DYNAMIC_LEN} are read")]
    DynamicTooLong {
        /// p_filesz.
        len: u64,
    },
    /// The executable needs a shared library.
    #[error("needs shared libraries (DT_NEEDED); link it with -static-pie or -no-pie")]
    Needed,
    /// The executable uses a kind of relocations that isn't supported.
    #[error("has relocations of a kind that isn't applied ({name}); {remedy}")]
    Form {
        /// Name of the dynamic entry.
        name: &'static str,
        /// What to change.
        remedy: &'static str,
    },
    /// The relocation table isn't inside the file.
    #[error("the {len:#x} bytes of relocations at {at:#x} lie outside what the file fills of a segment")]
    Outside {
        /// Virtual address of the table.
        at: u64,
        /// Length of the table in bytes.
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
    /// The relocation needs a dynamic loader.
    #[error(
        "the relocation at {at:#x} is of type {kind} ({}); only {} is applied, so link it with -static-pie or \
         -no-pie",
        type_name(*class, *kind),
        type_name(*class, RELATIVE)
    )]
    Type {
        /// Class of the ELF.
        class: ElfClass,
        /// Virtual address of the relocation.
        at: u64,
        /// Type of the relocation.
        kind: u32,
    },
    /// The relocation isn't inside a segment.
    #[error("the relocation at {at:#x} is outside every segment")]
    Target {
        /// Virtual address of the relocation.
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
