//! The multiboot header of a kernel (GNU Multiboot specification 0.6.96 §3.1).

use std::fmt;
use std::io::{Read, Seek};

use crate::elf_format::Segment;
use crate::elf_header;
use crate::platform::x86_64::flat::elf::{self, FlatElf};
use crate::platform::x86_64::flat::image_error::FlatImageError;
use crate::platform::x86_64::flat::multiboot_error::{MultibootError, SEARCH_LEN};
use crate::reader::{Reader, u32_at};

/// A kernel with a multiboot header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultibootImage {
    header: u64,
    body: Body,
}

/// What determines how a multiboot kernel is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// The headers of the kernel's ELF.
    Elf(FlatElf),
    /// The address fields of the multiboot header.
    Addresses { segment: Segment, entry: u64 },
}

/// Magic number, the first field of the header.
const MAGIC: u32 = 0x1bad_b002;
/// Search limit for misplaced headers, which no boot loader would find, in order to report them.
const FAR_SEARCH_LEN: usize = 64 << 10;
/// Lengths of the header without and with its address fields.
const HEADER_LEN: usize = 12;
const ADDRESSES_END: usize = 32;
/// Flags that need no action: page-aligned modules, and memory information. Both are always provided.
const PAGE_ALIGN: u32 = 1;
const MEMORY_INFO: u32 = 1 << 1;
/// Flag: the address fields are valid.
const ADDRESSES: u32 = 1 << 16;
/// Flags that are requirements: a loader that doesn't support one must not start the kernel.
const REQUIREMENTS: u32 = 0xffff;

/// A header with valid magic number and checksum.
pub(crate) struct Header {
    at: u64,
    flags: u32,
}

impl MultibootImage {
    /// Offset of the multiboot header in the file.
    pub fn header(&self) -> u64 {
        self.header
    }

    /// The ELF by whose headers it is loaded; `None` if the multiboot header has addresses.
    pub(crate) fn elf(&self) -> Option<&FlatElf> {
        match &self.body {
            Body::Elf(elf) => Some(elf),
            Body::Addresses { .. } => None,
        }
    }

    /// What determines how it is loaded.
    pub(crate) fn body(&self) -> &Body {
        &self.body
    }
}

impl fmt::Display for MultibootImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "multiboot header at {:#x}, ", self.header)?;
        match &self.body {
            Body::Elf(elf) => elf.fmt(f),
            Body::Addresses { entry, .. } => write!(f, "loaded by its addresses, entry {entry:#x}"),
        }
    }
}

/// Searches for a multiboot header.
pub(crate) fn find<F: Read + Seek>(reader: &mut Reader<'_, F>) -> Result<Option<Header>, FlatImageError> {
    let mut bytes = vec![0; reader.len().min(FAR_SEARCH_LEN as u64) as usize];
    reader.fill(0, &mut bytes)?;
    let mut bad = None;
    for (n, start) in bytes.windows(HEADER_LEN).enumerate().step_by(4) {
        let (magic, flags, checksum) = (u32_at(start, 0), u32_at(start, 4), u32_at(start, 8));
        if magic != MAGIC {
            continue;
        }
        let at = n as u64;
        let sum = magic.wrapping_add(flags).wrapping_add(checksum);
        let len = if flags & ADDRESSES == 0 { HEADER_LEN } else { ADDRESSES_END };
        match (sum, n + len <= SEARCH_LEN) {
            (0, true) => return Ok(Some(Header { at, flags })),
            // Beyond the limit the magic number alone may be a coincidence; with a valid checksum it isn't.
            (0, false) => bad = bad.or(Some(MultibootError::TooFar { at })),
            (sum, true) => bad = bad.or(Some(MultibootError::Checksum { at, sum })),
            (_, false) => {}
        }
    }
    bad.map_or(Ok(None), |error| Err(error.into()))
}

/// Reads the rest of a header found by [`find`].
pub(crate) fn inspect<F: Read + Seek>(
    header: Header,
    reader: &mut Reader<'_, F>,
) -> Result<MultibootImage, FlatImageError> {
    let Header { at, flags } = header;
    let missing = flags & REQUIREMENTS & !(PAGE_ALIGN | MEMORY_INFO);
    if missing != 0 {
        return Err(MultibootError::Flags { at, flags: missing }.into());
    }
    let body = if flags & ADDRESSES != 0 {
        if !reader.holds(at, ADDRESSES_END as u64) {
            let structure = "multiboot header";
            return Err(FlatImageError::Truncated { len: reader.len(), structure });
        }
        by_addresses(at, reader.array(at)?, reader.len())?
    } else if elf_header::is_elf(reader)? {
        Body::Elf(elf::inspect(reader)?)
    } else {
        return Err(MultibootError::NoAddresses { at }.into());
    };
    Ok(MultibootImage { header: at, body })
}

fn by_addresses(at: u64, header: [u8; ADDRESSES_END], file_len: u64) -> Result<Body, MultibootError> {
    let [header_addr, load_addr, load_end_addr, bss_end_addr, entry] =
        [12, 16, 20, 24, 28].map(|field| u32_at(&header, field));
    let Some(before) = header_addr.checked_sub(load_addr) else {
        return Err(MultibootError::HeaderBelowLoad { header_addr, load_addr });
    };
    let Some(offset) = at.checked_sub(before.into()) else {
        return Err(MultibootError::LoadBeforeFile { at, load_addr, before });
    };
    let len = match load_end_addr {
        // No underflow: the header is in the file, at or after the first byte that is loaded.
        0 => file_len - offset,
        end if end <= load_addr => return Err(MultibootError::LoadEnd { load_end_addr, load_addr }),
        end => u64::from(end - load_addr),
    };
    if len > file_len - offset {
        return Err(MultibootError::LoadBeyondFile { load_end_addr, offset, len, file_len });
    }
    // No overflow: a file has at most 2^63 bytes.
    let load_end = u64::from(load_addr) + len;
    let mem_len = match bss_end_addr {
        0 => len,
        end if u64::from(end) < load_end => return Err(MultibootError::BssEnd { bss_end_addr, load_end }),
        end => u64::from(end) - u64::from(load_addr),
    };
    let segment = Segment { offset, paddr: load_addr.into(), file_len: len, mem_len };
    Ok(Body::Addresses { segment, entry: entry.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::x86_64::flat::image::FlatImage;
    use crate::platform::x86_64::flat::testing::{
        complaint, elf64, inspected, load, multiboot_elf, multiboot_header, multiboot_raw,
    };
    use crate::testing::patched;

    fn multiboot(file: &[u8]) -> MultibootImage {
        match inspected(file) {
            FlatImage::Multiboot(multiboot) => multiboot,
            other => panic!("multiboot, not {other}"),
        }
    }

    /// `len` bytes with a header at `at`.
    fn raw(at: usize, header: &[u8], len: usize) -> Vec<u8> {
        patched(vec![0; len], at, header)
    }

    #[test]
    fn multiboot_elf_is_loaded_by_its_headers() {
        // After the ELF header and one program header.
        let image = multiboot(&multiboot_elf(3));
        assert_eq!(image.header(), 84);
        assert_eq!(image.to_string(), "multiboot header at 0x54, ELF32, 1 segments, entry 0x10000c");
    }

    #[test]
    fn multiboot_elf64_is_taken_too() {
        let mut text = load(0x10_0000, 64, 64);
        text.bytes[..12].copy_from_slice(&multiboot_header(0));
        // The segment's bytes start at 64 + 56 = 120, a multiple of 4.
        let image = multiboot(&elf64(2, 0x10_000c, &[text]));
        assert_eq!(image.to_string(), "multiboot header at 0x78, ELF64, 1 segments, entry 0x10000c");
    }

    #[test]
    fn multiboot_addresses_say_what_is_loaded() {
        // 80 bytes from 16 bytes before the header, which is at offset 32, and a BSS up to 0x101000.
        let file = multiboot_raw(32, [0x10_0010, 0x10_0000, 0x10_0050, 0x10_1000, 0x10_0030], 128);
        let segment = Segment { offset: 16, paddr: 0x10_0000, file_len: 0x50, mem_len: 0x1000 };
        assert_eq!(multiboot(&file).body(), &Body::Addresses { segment, entry: 0x10_0030 });
    }

    #[test]
    fn multiboot_addresses_of_0_mean_the_whole_file_and_no_bss() {
        let file = multiboot_raw(0, [0x10_0000, 0x10_0000, 0, 0, 0x10_0020], 100);
        let segment = Segment { offset: 0, paddr: 0x10_0000, file_len: 100, mem_len: 100 };
        assert_eq!(multiboot(&file).body(), &Body::Addresses { segment, entry: 0x10_0020 });
    }

    #[test]
    fn multiboot_addresses_are_used_instead_of_the_elf_headers() {
        let mut file = multiboot_raw(64, [0x10_0040, 0x10_0000, 0, 0, 0x10_0060], 128);
        file[..4].copy_from_slice(b"\x7fELF");
        assert_eq!(
            multiboot(&file).to_string(),
            "multiboot header at 0x40, loaded by its addresses, entry 0x100060"
        );
    }

    #[test]
    fn multiboot_flags_above_15_are_no_requirements() {
        assert_eq!(multiboot(&multiboot_elf(0xfffe_0000)).header(), 84);
    }

    #[test]
    fn multiboot_magic_that_is_not_aligned_is_no_header() {
        assert_eq!(inspected(&raw(2, &multiboot_header(0), 64)), FlatImage::Raw { len: 64 });
    }

    #[test]
    fn multiboot_bad_checksum_is_refused() {
        let file = patched(multiboot_elf(3), 92, &[0; 4]);
        let expected = "the multiboot header at 0x54 has a bad checksum: magic + flags + checksum are \
                        0x1badb005, but must be 0";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn multiboot_bad_checksum_before_a_good_header_is_ignored() {
        let file = patched(multiboot_elf(0), 84 + 32, &multiboot_header(0));
        let file = patched(file, 92, &[0; 4]);
        assert_eq!(multiboot(&file).header(), 116);
    }

    #[test]
    fn multiboot_header_that_ends_with_the_first_8_kib_is_found() {
        let expected = "the multiboot header at 0x1ff4 has no addresses (flag 16 is clear), and the file is no \
                        ELF; set flag 16 or link an ELF";
        assert_eq!(complaint(&raw(8180, &multiboot_header(0), 9000)), expected);
    }

    #[test]
    fn multiboot_header_beyond_the_first_8_kib_is_refused() {
        let expected = "the multiboot header is at 0x1ff8, beyond the first 8192 bytes";
        assert_eq!(complaint(&raw(8184, &multiboot_header(0), 9000)), expected);
        let expected = "the multiboot header is at 0xfff4, beyond the first 8192 bytes";
        assert_eq!(complaint(&raw(0xfff4, &multiboot_header(0), 0x1_0000)), expected);
    }

    #[test]
    fn multiboot_header_with_addresses_beyond_the_first_8_kib_is_refused() {
        let expected = "the multiboot header is at 0x1fe4, beyond the first 8192 bytes";
        assert_eq!(complaint(&multiboot_raw(8164, [0; 5], 9000)), expected);
    }

    #[test]
    fn multiboot_magic_beyond_the_first_8_kib_without_a_checksum_is_no_header() {
        let file = raw(8192, &0x1bad_b002_u32.to_le_bytes(), 9000);
        assert_eq!(inspected(&file), FlatImage::Raw { len: 9000 });
    }

    #[test]
    fn multiboot_flags_that_are_not_offered_are_each_named() {
        let expected = "the multiboot header at 0x54 requires what isn't offered: flag 2 (a video mode), \
                        flag 15 (not in the specification)";
        assert_eq!(complaint(&multiboot_elf(0x8007)), expected);
    }

    #[test]
    fn multiboot_header_that_ends_the_file_before_its_addresses_is_truncated() {
        let file = raw(0, &multiboot_header(1 << 16), 31);
        assert_eq!(complaint(&file), "ends after 31 bytes, inside its multiboot header");
    }

    #[test]
    fn multiboot_header_addr_below_load_addr_is_refused() {
        let file = multiboot_raw(0, [0xf_ffff, 0x10_0000, 0, 0, 0], 64);
        let expected = "multiboot header: header_addr 0xfffff is below load_addr 0x100000";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn multiboot_load_addr_before_the_file_is_refused() {
        let file = multiboot_raw(4, [0x10_0008, 0x10_0000, 0, 0, 0], 64);
        let expected = "multiboot header: load_addr 0x100000 is 0x8 bytes before the header, which is only 0x4 \
                        bytes into the file";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn multiboot_load_end_addr_at_load_addr_is_refused() {
        let file = multiboot_raw(0, [0x10_0000, 0x10_0000, 0x10_0000, 0, 0], 64);
        let expected = "multiboot header: load_end_addr 0x100000 isn't above load_addr 0x100000";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn multiboot_load_end_addr_beyond_the_file_is_refused() {
        let file = multiboot_raw(0, [0x10_0000, 0x10_0000, 0x10_0041, 0, 0], 64);
        let expected = "multiboot header: load_end_addr 0x100041 asks for 0x41 bytes from 0x0 on, beyond the \
                        end of the file at 0x40";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn multiboot_bss_end_addr_inside_what_is_loaded_is_refused() {
        let file = multiboot_raw(0, [0x10_0000, 0x10_0000, 0, 0x10_003f, 0], 64);
        let expected = "multiboot header: bss_end_addr 0x10003f is below the end of what is loaded, 0x100040";
        assert_eq!(complaint(&file), expected);
    }
}
