//! Kernel files.

use std::fmt;
use std::io::{Read, Seek};
use std::ops::Range;

use vmm_arch::boot::Protocol;

use crate::elf_format;
use crate::platform::x86_64::bzimage::{self, BzImage};
use crate::platform::x86_64::elf::{self, ElfImage};
use crate::platform::x86_64::image_error::ImageError;
use crate::reader::{Reader, u16_at, u32_at};

/// A kernel whose headers are consistent with each other and with the file's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelImage {
    /// An executable, such as vmlinux.
    Elf(ElfImage),
    /// A self-extracting Linux kernel, such as vmlinuz.
    BzImage(BzImage),
}

/// Name of a protocol in messages and in the configuration.
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Linux64 => "linux64",
        Protocol::Linux32 => "linux32",
        Protocol::Pvh => "pvh",
    }
}

/// Magic numbers of compressed files.
const COMPRESSED: [(&[u8], &str); 8] = [
    (b"\x1f\x8b", "a gzip file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"BZh", "a bzip2 file"),
    (b"\x04\x22\x4d\x18", "an lz4 file"),
    (b"\x02\x21\x4c\x18", "an lz4 file"),
    (b"\x5d\0\0", "an lzma file"),
    (b"\x89LZO", "an lzop file"),
];

/// Number of bytes of a bzImage's version text that are examined.
const VERSION_LEN: usize = 16;
/// Magic number of a DOS or EFI program; also of a bzImage and of an arm64 Image with an EFI stub.
const MZ: &[u8] = b"MZ";
/// Offset of the magic number in an arm64 or riscv64 Image (Linux Documentation/arch/arm64/booting.rst).
const IMAGE_MAGIC: usize = 0x38;
/// Offset of the field with the PE header's offset in an EFI program (PE format, "MS-DOS stub").
const PE_OFFSET: usize = 0x3c;
/// Machine type of a PE file for aarch64 (PE format, "Machine types").
const PE_MACHINE_ARM64: u16 = 0xaa64;

impl KernelImage {
    /// Reads the headers of `file` and determines its kind. The file's position is unspecified afterwards.
    ///
    /// Reads at most the setup header of a bzImage; of an ELF, 128 program headers and its notes.
    ///
    /// # Errors
    /// The file can't be read, isn't a kernel for this machine, or has fields that contradict each other or
    /// the file's length.
    pub fn inspect<F: Read + Seek>(file: &mut F) -> Result<Self, ImageError> {
        let mut reader = Reader::new(file)?;
        if reader.len() == 0 {
            return Err(ImageError::Empty);
        }
        let start = reader.padded(0)?;
        if start.starts_with(elf_format::MAGIC) {
            return elf::inspect(&mut reader).map(Self::Elf);
        }
        if bzimage::is_bzimage(&start) && reader.len() >= bzimage::HEADER_END {
            let version: [u8; VERSION_LEN] = match bzimage::version_text_at(&start) {
                Some(at) => reader.padded(at)?,
                None => [0; VERSION_LEN],
            };
            if let Some(program) = bzimage::bios_program(&start, &version) {
                return Err(ImageError::NeedsBios { program });
            }
            return bzimage::inspect(&start, reader.len()).map(Self::BzImage).map_err(Into::into);
        }
        Err(unknown(&start, &mut reader))
    }

    /// The protocols that the kernel supports, in order of preference; never empty.
    pub fn protocols(&self) -> Vec<Protocol> {
        // ELF: a PVH note is an explicit statement, an entry point only a convention. bzImage: with the
        // 64-bit entry the kernel needn't build its first page tables.
        [Protocol::Pvh, Protocol::Linux64, Protocol::Linux32]
            .into_iter()
            .filter(|protocol| self.entry(*protocol).is_some())
            .collect()
    }

    /// The default protocol.
    pub fn default_protocol(&self) -> Protocol {
        match self {
            Self::Elf(elf) if elf.pvh_entry().is_some() => Protocol::Pvh,
            Self::BzImage(bzimage) if bzimage.entry64().is_none() => Protocol::Linux32,
            _ => Protocol::Linux64,
        }
    }

    /// Guest-physical address of the entry for `protocol`, if the kernel supports it.
    pub(crate) fn entry(&self, protocol: Protocol) -> Option<u64> {
        match (self, protocol) {
            (Self::Elf(elf), Protocol::Pvh) => elf.pvh_entry(),
            (Self::Elf(elf), Protocol::Linux64) => elf.linux64_entry(),
            (Self::BzImage(bzimage), Protocol::Linux64) => bzimage.entry64(),
            (Self::BzImage(bzimage), Protocol::Linux32) => Some(bzimage.load_address()),
            (Self::Elf(_), Protocol::Linux32) | (Self::BzImage(_), Protocol::Pvh) => None,
        }
    }

    /// All memory that the kernel occupies until it manages memory itself.
    pub(crate) fn footprint(&self) -> Range<u64> {
        match self {
            Self::Elf(elf) => elf.footprint(),
            Self::BzImage(bzimage) => bzimage.footprint(),
        }
    }

    /// Maximum length of the command line in bytes, without its NUL.
    pub(crate) fn cmdline_max_len(&self) -> u64 {
        match self {
            Self::Elf(_) => elf::ELF_CMDLINE_MAX_LEN,
            Self::BzImage(bzimage) => bzimage.cmdline_max_len(),
        }
    }

    /// Exclusive limit of the initrd's addresses.
    pub(crate) fn initrd_limit(&self) -> u64 {
        match self {
            Self::Elf(_) => elf::ELF_INITRD_LIMIT,
            Self::BzImage(bzimage) => bzimage.initrd_limit(),
        }
    }
}

impl fmt::Display for KernelImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf(elf) => elf.fmt(f),
            Self::BzImage(bzimage) => bzimage.fmt(f),
        }
    }
}

/// Identifies a file that is neither ELF nor bzImage as well as possible from its first bytes.
fn unknown<F: Read + Seek>(start: &[u8], reader: &mut Reader<'_, F>) -> ImageError {
    if let Some((_, format)) = COMPRESSED.iter().find(|(magic, _)| start.starts_with(magic)) {
        return ImageError::Compressed { format };
    }
    match &start[IMAGE_MAGIC..IMAGE_MAGIC + 4] {
        b"ARM\x64" => return ImageError::Foreign { kernel: "an aarch64 kernel" },
        b"RSC\x05" => return ImageError::Foreign { kernel: "a riscv64 kernel" },
        _ => {}
    }
    match pe_machine(start, reader) {
        Some(PE_MACHINE_ARM64) => return ImageError::Foreign { kernel: "an aarch64 kernel" },
        Some(_) => return ImageError::Efi,
        None => {}
    }
    let boot_sector = start.starts_with(MZ) || u16_at(start, bzimage::BOOT_FLAG) == bzimage::BOOT_MAGIC;
    if boot_sector && reader.len() < bzimage::HEADER_END {
        return ImageError::Truncated { len: reader.len(), structure: "setup header" };
    }
    ImageError::UnknownFormat { magic: u16::from_be_bytes([start[0], start[1]]) }
}

/// The machine type of a PE file.
fn pe_machine<F: Read + Seek>(start: &[u8], reader: &mut Reader<'_, F>) -> Option<u16> {
    let offset = u64::from(u32_at(start, PE_OFFSET));
    if !start.starts_with(MZ) || !reader.holds(offset, 6) {
        return None;
    }
    let header: [u8; 6] = reader.array(offset).ok()?;
    header.starts_with(b"PE\0\0").then(|| u16_at(&header, 4))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor};

    use super::*;
    use crate::testing::Part;
    use crate::testing::{bzimage, complaint, elf, inspected, patched, pvh_notes, vmlinux};

    #[test]
    fn elf_with_a_pvh_note_prefers_pvh() {
        let image = inspected(&vmlinux());
        assert_eq!(image.default_protocol(), Protocol::Pvh);
        assert_eq!(image.protocols(), [Protocol::Pvh, Protocol::Linux64]);
    }

    #[test]
    fn elf_without_a_note_is_entered_by_linux64() {
        let image =
            inspected(&elf(0x10_0000, &[Part::Load { paddr: 0x10_0000, bytes: vec![1], mem_len: 1 }]));
        assert_eq!(image.default_protocol(), Protocol::Linux64);
        assert_eq!(image.protocols(), [Protocol::Linux64]);
    }

    #[test]
    fn elf_with_a_virtual_entry_and_a_pvh_note_offers_pvh_only() {
        let load = Part::Load { paddr: 0x10_0000, bytes: vec![1; 16], mem_len: 16 };
        let image = inspected(&elf(0xffff_ffff_8100_0000, &[load, pvh_notes(0x10_0008)]));
        assert_eq!(image.protocols(), [Protocol::Pvh]);
    }

    #[test]
    fn bzimage_with_a_64_bit_entry_prefers_it() {
        let image = inspected(&bzimage());
        assert_eq!(image.default_protocol(), Protocol::Linux64);
        assert_eq!(image.protocols(), [Protocol::Linux64, Protocol::Linux32]);
    }

    #[test]
    fn bzimage_without_a_64_bit_entry_is_entered_by_linux32() {
        // xloadflags bit 0, XLF_KERNEL_64, clear.
        let image = inspected(&patched(bzimage(), 0x236, &[0x7e, 0]));
        assert_eq!(image.default_protocol(), Protocol::Linux32);
        assert_eq!(image.protocols(), [Protocol::Linux32]);
    }

    #[test]
    fn image_empty_is_refused() {
        assert_eq!(complaint(b""), "is empty");
    }

    #[test]
    fn image_of_one_byte_is_refused() {
        assert_eq!(
            complaint(b"\x7f"),
            "neither ELF nor bzImage (magic 0x7f00); machine code without a header is a flat image"
        );
    }

    #[test]
    fn image_dos_program_is_refused_by_its_magic() {
        assert_eq!(
            complaint(&patched(vec![0; 4096], 0, b"MZ")),
            "neither ELF nor bzImage (magic 0x4d5a); machine code without a header is a flat image"
        );
    }

    #[test]
    fn image_shell_script_is_refused_by_its_magic() {
        assert_eq!(
            complaint(b"#!/bin/sh\nexit 0\n"),
            "neither ELF nor bzImage (magic 0x2321); machine code without a header is a flat image"
        );
    }

    #[test]
    fn image_gzip_is_named() {
        assert_eq!(complaint(b"\x1f\x8b\x08\0\0\0\0\0"), "a gzip file; unpack it first");
    }

    #[test]
    fn image_zstd_is_named() {
        assert_eq!(complaint(b"\x28\xb5\x2f\xfd\x04\x88"), "a zstd file; unpack it first");
    }

    #[test]
    fn image_xz_is_named() {
        assert_eq!(complaint(b"\xfd7zXZ\0\0\x04"), "an xz file; unpack it first");
    }

    #[test]
    fn image_lz4_as_linux_packs_it_is_named() {
        assert_eq!(complaint(b"\x02\x21\x4c\x18\x10\xc1"), "an lz4 file; unpack it first");
    }

    #[test]
    fn image_arm64_image_is_named() {
        let image = patched(patched(vec![0; 4096], 0, b"MZ"), 0x38, b"ARM\x64");
        assert_eq!(complaint(&image), "an aarch64 kernel; an x86_64 kernel is needed");
    }

    #[test]
    fn image_riscv64_image_is_named() {
        let image = patched(vec![0; 4096], 0x38, b"RSC\x05");
        assert_eq!(complaint(&image), "a riscv64 kernel; an x86_64 kernel is needed");
    }

    #[test]
    fn image_arm64_efi_program_is_named() {
        let image = patched(patched(vec![0; 4096], 0, b"MZ"), 0x3c, &0x80_u32.to_le_bytes());
        let image = patched(image, 0x80, b"PE\0\0\x64\xaa");
        assert_eq!(complaint(&image), "an aarch64 kernel; an x86_64 kernel is needed");
    }

    #[test]
    fn image_unified_kernel_image_is_named() {
        let image = patched(patched(vec![0; 4096], 0, b"MZ"), 0x3c, &0x80_u32.to_le_bytes());
        let image = patched(image, 0x80, b"PE\0\0\x64\x86");
        let expected = "an EFI program without a Linux setup header; neither ELF nor bzImage";
        assert_eq!(complaint(&image), expected);
    }

    #[test]
    fn image_pe_header_beyond_the_file_is_no_efi_program() {
        let image = patched(patched(vec![0; 4096], 0, b"MZ"), 0x3c, &4091_u32.to_le_bytes());
        assert_eq!(
            complaint(&image),
            "neither ELF nor bzImage (magic 0x4d5a); machine code without a header is a flat image"
        );
    }

    #[test]
    fn image_that_ends_inside_the_setup_header_says_where() {
        assert_eq!(complaint(&bzimage()[..0x210]), "ends after 528 bytes, inside its setup header");
        assert_eq!(complaint(&bzimage()[..100]), "ends after 100 bytes, inside its setup header");
    }

    #[test]
    fn image_that_ends_inside_the_elf_header_says_where() {
        assert_eq!(complaint(&vmlinux()[..63]), "ends after 63 bytes, inside its ELF header");
        assert_eq!(complaint(b"\x7fELF"), "ends after 4 bytes, inside its ELF header");
    }

    #[test]
    fn image_that_cannot_be_read_has_the_cause() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("medium error"))
            }
        }
        impl Seek for Broken {
            fn seek(&mut self, _: io::SeekFrom) -> io::Result<u64> {
                Ok(4096)
            }
        }
        let error = KernelImage::inspect(&mut Broken).unwrap_err();
        assert_eq!(error.to_string(), "can't be read");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "medium error");
    }

    #[test]
    fn image_display_tells_the_facts() {
        let shown = |file: &[u8]| KernelImage::inspect(&mut Cursor::new(file)).unwrap().to_string();
        assert_eq!(shown(&vmlinux()), "ELF, 2 segments, entry 0x200000, PVH entry 0x200040");
        assert_eq!(
            shown(&bzimage()),
            "bzImage, boot protocol 2.15, relocatable, unpacks to 0x200000, init_size 0x100000"
        );
    }
}
