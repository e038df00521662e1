//! Why a file is no kernel that can be booted.

use std::io;

use crate::bzimage::BzImageError;
use crate::elf_error::ElfError;

/// Why a file is no kernel that can be booted.
///
/// The messages say what the file is or does, so that `kernel image vm/bz: ` fits in front of them.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Reading or seeking failed.
    #[error("can't be read")]
    Read(#[from] io::Error),
    /// No bytes at all.
    #[error("is empty")]
    Empty,
    /// The file is shorter than a structure that it begins.
    #[error("ends after {len} bytes, inside its {structure}")]
    Truncated {
        /// Length of the file in bytes.
        len: u64,
        /// What the file ends in.
        structure: &'static str,
    },
    /// Nothing that is known.
    #[error("neither ELF nor bzImage (magic {magic:#06x}); machine code without a header is a flat image")]
    UnknownFormat {
        /// The first two bytes, in the order of the file.
        magic: u16,
    },
    /// A kernel inside a compressed file, or something else in there.
    #[error("{format}; unpack it first")]
    Compressed {
        /// What the file is, with its article.
        format: &'static str,
    },
    /// A kernel for another processor.
    #[error("{kernel}; an x86_64 kernel is needed")]
    Foreign {
        /// What the file is, with its article.
        kernel: &'static str,
    },
    /// A PE file without a Linux setup header, such as a unified kernel image.
    #[error("an EFI program without a Linux setup header; neither ELF nor bzImage")]
    Efi,
    /// A bzImage that calls the BIOS.
    #[error(
        "{program}: it needs a BIOS, and there is none here; boot the kernel and the initrd that it would load"
    )]
    NeedsBios {
        /// What the file is.
        program: &'static str,
    },
    /// An ELF that contradicts itself, or that isn't a kernel for this machine.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A bzImage whose setup header lies, or is too old.
    #[error(transparent)]
    BzImage(#[from] BzImageError),
}
