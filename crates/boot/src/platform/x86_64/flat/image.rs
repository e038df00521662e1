//! Flat images.

use std::fmt;
use std::io::{Read, Seek};

use vmm_arch::flat::Mode;

use crate::elf_header;
use crate::platform::x86_64::bzimage;
use crate::platform::x86_64::flat::elf::{self, FlatElf};
use crate::platform::x86_64::flat::image_error::FlatImageError;
use crate::platform::x86_64::flat::multiboot::{self, MultibootImage};
use crate::reader::Reader;

/// A flat image whose headers, if it has any, are consistent with each other and with the file's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlatImage {
    /// A raw image, loaded unchanged.
    Raw {
        /// Length in bytes; never 0.
        len: u64,
    },
    /// A bare-metal executable, loaded by its headers.
    Elf(FlatElf),
    /// A kernel with a multiboot header.
    Multiboot(MultibootImage),
}

impl FlatImage {
    /// Reads the headers of `file` and determines its kind: multiboot if it has such a header, else ELF if it
    /// has that magic number, else raw. The file's position is unspecified afterwards.
    ///
    /// Reads at most the first 64 KiB; of an ELF also 128 program headers, its dynamic section and its
    /// relocations, which are read in chunks.
    ///
    /// # Errors
    /// The file can't be read, is for another machine, requires unsupported features, or has fields that
    /// contradict each other or the file's length.
    pub fn inspect<F: Read + Seek>(file: &mut F) -> Result<Self, FlatImageError> {
        let mut reader = Reader::new(file)?;
        if reader.len() == 0 {
            return Err(FlatImageError::Empty);
        }
        if let Some(header) = multiboot::find(&mut reader)? {
            return multiboot::inspect(header, &mut reader).map(Self::Multiboot);
        }
        if elf_header::is_elf(&mut reader)? {
            return elf::inspect(&mut reader).map(Self::Elf);
        }
        if bzimage::is_bzimage(&reader.padded(0)?) {
            return Err(FlatImageError::BzImage);
        }
        Ok(Self::Raw { len: reader.len() })
    }

    /// The mode in which it is started by default.
    pub fn default_mode(&self) -> Mode {
        match self {
            Self::Raw { .. } => Mode::Real,
            Self::Elf(elf) => elf.default_mode(),
            Self::Multiboot(_) => Mode::Protected,
        }
    }

    /// The ELF whose headers determine how it is loaded, if there is one.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::x86_64::flat::testing::{complaint, inspected};
    use crate::testing::bzimage;

    #[test]
    fn image_without_a_header_is_raw() {
        // The first ten bytes of every tutorial guest: mov dx, 0x3f8; mov al, 'H'; out dx, al; hlt; jmp.
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
