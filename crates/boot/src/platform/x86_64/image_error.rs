//! Errors in kernel files.

use std::io;

use crate::elf_error::ElfError;
use crate::platform::x86_64::bzimage::BzImageError;

/// Why a file isn't a kernel that can be booted.
///
/// The messages continue a sentence that starts with the file, such as `kernel image vm/bz: `.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Reading or seeking failed.
    #[error("can't be read")]
    Read(#[from] io::Error),
    /// The file is empty.
    #[error("is empty")]
    Empty,
    /// The file ends inside a structure.
    #[error("ends after {len} bytes, inside its {structure}")]
    Truncated {
        /// Length of the file in bytes.
        len: u64,
        /// Name of the structure.
        structure: &'static str,
    },
    /// The file is neither ELF nor bzImage.
    #[error("neither ELF nor bzImage (magic {magic:#06x}); machine code without a header is a flat image")]
    UnknownFormat {
        /// The first two bytes, in file order.
        magic: u16,
    },
    /// The file is compressed.
    #[error("{format}; unpack it first")]
    Compressed {
        /// Name of the format, with its article.
        format: &'static str,
    },
    /// The kernel is for another processor.
    #[error("{kernel}; an x86_64 kernel is needed")]
    Foreign {
        /// Name of the kernel, with its article.
        kernel: &'static str,
    },
    /// A PE file without a Linux setup header, such as a unified kernel image.
    #[error("an EFI program without a Linux setup header; neither ELF nor bzImage")]
    Efi,
    /// A bzImage that needs a BIOS.
    #[error(
        "{program}: it needs a BIOS, and there is none here; boot the kernel and the initrd that it would load"
    )]
    NeedsBios {
        /// Name of the program.
        program: &'static str,
    },
    /// An ELF that is inconsistent, or isn't a kernel for this machine.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A bzImage whose setup header is inconsistent or too old.
    #[error(transparent)]
    BzImage(#[from] BzImageError),
}
