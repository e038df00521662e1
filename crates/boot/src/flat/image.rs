//! A flat image, as far as its headers tell.

use std::fmt;
use std::io::{self, Read, Seek};

use vmm_arch::flat::Mode;

use crate::bzimage;
use crate::elf::ElfError;
use crate::elf_header;
use crate::flat::elf::{self, FlatElf};
use crate::flat::multiboot::{self, MultibootError, MultibootImage};
use crate::flat::relocation::RelocationError;
use crate::reader::Reader;

/// A program whose headers, if it has any, were found to agree with each other and with the file's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlatImage {
    /// Bytes that are loaded as they are.
    Raw {
        /// How many; never 0.
        len: u64,
    },
    /// An executable that says itself what goes where.
    Elf(FlatElf),
    /// A kernel with a multiboot header.
    Multiboot(MultibootImage),
}

/// Why a file is no flat image that can be started.
///
/// The messages say what the file is or does, so that `image vm/hello.bin: ` fits in front of them.
#[derive(Debug, thiserror::Error)]
pub enum FlatImageError {
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
    /// EI_DATA isn't little endian.
    #[error("a big-endian ELF (data {data}); a little-endian one for i386 or x86_64 is needed")]
    Endianness {
        /// EI_DATA.
        data: u8,
    },
    /// Another processor's, or one of this one that mixes its widths.
    #[error(
        "a {} ELF for {} (machine {machine}); a 32-bit one for i386 (machine 3) or a 64-bit one for x86_64 \
         (machine 62) is needed",
        elf::class_name(*class),
        elf::machine_name(*machine)
    )]
    Machine {
        /// EI_CLASS.
        class: u8,
        /// e_machine.
        machine: u16,
    },
    /// An object file, a core file.
    #[error("e_type {kind}: {name}; an executable (e_type 2, or 3 if it is static) is needed")]
    Type {
        /// e_type.
        kind: u16,
        /// What that is.
        name: &'static str,
    },
    /// An executable that a dynamic loader has to finish.
    #[error(
        "needs a dynamic loader (program header {segment} is PT_INTERP); link it with -static-pie or -no-pie"
    )]
    Interpreter {
        /// Which program header.
        segment: u16,
    },
    /// A kernel with a boot protocol of its own.
    #[error(
        "is a Linux kernel (bzImage); boot it by boot.kernel (--kernel), or set boot.flat.format to \"raw\" if it only \
         looks like one"
    )]
    BzImage,
    /// An ELF that contradicts itself.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A position-independent executable that can't be put anywhere.
    #[error(transparent)]
    Relocation(#[from] RelocationError),
    /// A multiboot header that contradicts itself, or asks for too much.
    #[error(transparent)]
    Multiboot(#[from] MultibootError),
}

impl FlatImage {
    /// Reads the headers of `file` and decides what it is: multiboot if it has such a header, else ELF if it
    /// has that magic number, else raw. The position in the file is left anywhere.
    ///
    /// Reads at most the first 64 KiB; of an ELF also 128 program headers, its dynamic section and its
    /// relocations, these piece by piece.
    ///
    /// # Errors
    /// The file can't be read, is for another machine, asks for what isn't there, or one of its fields
    /// contradicts another or the file's length.
    pub fn inspect<F: Read + Seek>(file: &mut F) -> Result<Self, FlatImageError> {
        let mut reader = Reader::new(file)?;
        if reader.len() == 0 {
            return Err(FlatImageError::Empty);
        }
        if let Some(header) = multiboot::find(&mut reader)? {
            return multiboot::inspect(header, &mut reader).map(Self::Multiboot);
        }
        if is_elf(&mut reader)? {
            return elf::inspect(&mut reader).map(Self::Elf);
        }
        if bzimage::is_bzimage(&reader.padded(0)?) {
            return Err(FlatImageError::BzImage);
        }
        Ok(Self::Raw { len: reader.len() })
    }

    /// The mode in which it is started unless another is asked for.
    pub fn default_mode(&self) -> Mode {
        match self {
            Self::Raw { .. } => Mode::Real,
            Self::Elf(elf) => elf.default_mode(),
            Self::Multiboot(_) => Mode::Protected,
        }
    }

    /// The ELF that is loaded by its headers, if it is one.
    pub(crate) fn elf(&self) -> Option<&FlatElf> {
        match self {
            Self::Raw { .. } => None,
            Self::Elf(elf) => Some(elf),
            Self::Multiboot(multiboot) => multiboot.elf(),
        }
    }
}

impl fmt::Display for FlatImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw { len } => write!(f, "raw, {len} bytes"),
            Self::Elf(elf) => elf.fmt(f),
            Self::Multiboot(multiboot) => multiboot.fmt(f),
        }
    }
}

/// Whether the file begins as an ELF does.
pub(crate) fn is_elf<F: Read + Seek>(reader: &mut Reader<'_, F>) -> io::Result<bool> {
    let start: [u8; 4] = reader.padded(0)?;
    Ok(start == *elf_header::MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flat::testing::{complaint, inspected};
    use crate::testing::bzimage;

    #[test]
    fn image_without_a_header_is_raw() {
        // The ten bytes of every first guest: mov dx, 0x3f8; mov al, 'H'; out dx, al; hlt; jmp.
        assert_eq!(inspected(b"\xba\xf8\x03\xb0\x48\xee\xf4\xeb\xfd\x90").to_string(), "raw, 10 bytes");
    }

    #[test]
    fn image_of_one_byte_is_raw() {
        assert_eq!(inspected(b"\xf4"), FlatImage::Raw { len: 1 });
    }

    #[test]
    fn image_raw_is_started_in_real_mode() {
        assert_eq!(inspected(b"\xf4").default_mode(), Mode::Real);
    }

    #[test]
    fn image_empty_is_refused() {
        assert_eq!(complaint(b""), "is empty");
    }

    #[test]
    fn image_that_is_a_kernel_says_how_to_boot_it() {
        let expected = "is a Linux kernel (bzImage); boot it by boot.kernel (--kernel), or set boot.flat.format to \"raw\" if \
                        it only looks like one";
        assert_eq!(complaint(&bzimage()), expected);
    }

    #[test]
    fn image_that_ends_inside_the_elf_header_says_where() {
        assert_eq!(complaint(b"\x7fELF"), "ends after 4 bytes, inside its ELF header");
    }
}
