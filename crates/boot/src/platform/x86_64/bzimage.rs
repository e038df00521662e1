//! The setup header of a bzImage (Linux x86 boot protocol, "The Real-Mode Kernel Header").

use std::fmt;
use std::ops::Range;

use linux_loader::loader::bootparam::setup_header;
use vmm_arch::layout;

use crate::reader::{u16_at, u32_at, u64_at};

/// Length of the start of the file that contains every field read here, in bytes.
pub(crate) const START_LEN: usize = 0x290;

/// Field offsets in the file, as in the specification.
const SETUP_SECTS: usize = 0x1f1;
const SYSSIZE: usize = 0x1f4;
pub(crate) const BOOT_FLAG: usize = 0x1fe;
const JUMP_DISTANCE: usize = 0x201;
const HEADER: usize = 0x202;
const VERSION: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const LOADFLAGS: usize = 0x211;
const CODE32_START: usize = 0x214;
const INITRD_ADDR_MAX: usize = 0x22c;
const KERNEL_ALIGNMENT: usize = 0x230;
const RELOCATABLE_KERNEL: usize = 0x234;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
/// End of `init_size`, the last required field.
pub(crate) const HEADER_END: u64 = 0x264;
/// Ends of `handover_offset` and `kernel_info_offset`, which later versions added.
const HANDOVER_OFFSET_END: u64 = 0x268;
const KERNEL_INFO_OFFSET_END: u64 = 0x26c;

/// Value of `boot_flag`.
pub(crate) const BOOT_MAGIC: u16 = 0xaa55;
/// Value of `header`.
const HDRS: &[u8] = b"HdrS";
/// The first version with `pref_address` and `init_size`, Linux 2.6.31. Without them the memory that a kernel
/// needs is unknown.
const MIN_VERSION: u16 = 0x020a;
/// The first version with `xloadflags`, Linux 3.8.
const XLOADFLAGS_VERSION: u16 = 0x020c;
/// `loadflags`: the protected-mode code is loaded at 1 MiB.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: the kernel has a 64-bit entry.
const XLF_KERNEL_64: u16 = 1;
/// Offset of the 64-bit entry in the protected-mode code.
const ENTRY64_OFFSET: u64 = 0x200;
/// Size of the boot sector and unit of `setup_sects`, in bytes.
const SECTOR_LEN: u64 = 512;
/// Unit of `syssize`, in bytes.
const PARAGRAPH_LEN: u64 = 16;
/// Limit of addresses that the entries can use: 32-bit mode, or 64-bit mode with the first 4 GiB mapped.
const FOUR_GIB: u64 = 1 << 32;

/// A bzImage whose setup header has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BzImage {
    version: u16,
    header_end: u64,
    kernel_len: u64,
    code32_start: u32,
    kernel_alignment: u32,
    relocatable: bool,
    pref_address: u64,
    init_size: u32,
    has_entry64: bool,
    cmdline_size: u32,
    initrd_addr_max: u32,
    payload: Range<u64>,
}

/// A field of the setup header that is invalid or unsupported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BzImageError {
    /// The boot flag is missing.
    #[error("boot_flag {value:#06x}: a bzImage has 0xaa55")]
    BootFlag {
        /// `boot_flag`.
        value: u16,
    },
    /// The boot protocol is older than Linux 2.6.31.
    #[error("boot protocol {}.{:02}: 2.10 (Linux 2.6.31) or newer is needed", version >> 8, version & 0xff)]
    Version {
        /// `version`.
        version: u16,
    },
    /// The header is shorter than its version requires.
    #[error("the setup header ends at {end:#x}, before its init_size at 0x260")]
    HeaderEnd {
        /// End of the header: 0x202 plus the jump's distance.
        end: u64,
    },
    /// A zImage, which is loaded below 1 MiB.
    #[error("loadflags {loadflags:#04x}: a zImage, which is loaded below 1 MiB; a bzImage is needed")]
    NotHigh {
        /// `loadflags`.
        loadflags: u8,
    },
    /// The kernel would start past the end of the file.
    #[error(
        "setup_sects {sectors}: the kernel would start at byte {setup_len}, the file ends after {file_len}"
    )]
    SetupSects {
        /// `setup_sects`.
        sectors: u8,
        /// Length of boot sector and setup code in bytes.
        setup_len: u64,
        /// Length of the file in bytes.
        file_len: u64,
    },
    /// The kernel would end past the end of the file.
    #[error(
        "syssize {syssize:#x}: {claimed} bytes of kernel, the file holds {kernel_len}; it was cut, copy it again"
    )]
    SysSize {
        /// `syssize`, in units of 16 bytes.
        syssize: u32,
        /// `syssize` in bytes.
        claimed: u64,
        /// Length of the kernel in the file, in bytes.
        kernel_len: u64,
    },
    /// The compressed payload exceeds the kernel.
    #[error(
        "payload_offset {offset:#x} + payload_length {len:#x} is outside the kernel's {kernel_len:#x} bytes"
    )]
    Payload {
        /// `payload_offset`.
        offset: u32,
        /// `payload_length`.
        len: u32,
        /// Length of the kernel in bytes.
        kernel_len: u64,
    },
    /// The alignment isn't a power of two.
    #[error("kernel_alignment {value:#x} is not a power of two")]
    KernelAlignment {
        /// `kernel_alignment`.
        value: u32,
    },
    /// The preferred address isn't below 4 GiB.
    #[error("pref_address {value:#x} is beyond 4 GiB")]
    PrefAddress {
        /// `pref_address`.
        value: u64,
    },
    /// `init_size` is 0.
    #[error("init_size is 0")]
    InitSize,
    /// The 64-bit entry is past the end of the kernel.
    #[error("xloadflags {xloadflags:#x}: a 64-bit entry at 0x200, but the kernel has {kernel_len} bytes")]
    Entry64 {
        /// `xloadflags`.
        xloadflags: u16,
        /// Length of the kernel in bytes.
        kernel_len: u64,
    },
}

impl BzImage {
    /// The compressed kernel, as a range of the file.
    pub fn payload(&self) -> Range<u64> {
        self.payload.clone()
    }

    /// Guest-physical load address of the protected-mode code, which is also the 32-bit entry.
    ///
    /// It is `code32_start`, 1 MiB in every bzImage. Loading higher has no advantage: the kernel first copies
    /// itself to the end of the memory that it unpacks into, wherever it was loaded.
    pub fn load_address(&self) -> u64 {
        u64::from(self.code32_start)
    }

    /// The 64-bit entry, if there is one.
    pub fn entry64(&self) -> Option<u64> {
        self.has_entry64.then(|| self.load_address() + ENTRY64_OFFSET)
    }

    /// The address to which the kernel unpacks itself (Linux x86 boot protocol, `init_size`).
    ///
    /// A relocatable kernel unpacks at its load address or at `pref_address`, whichever is higher, rounded up
    /// to its alignment; other kernels always unpack at `pref_address`.
    fn runtime_start(&self) -> u64 {
        if !self.relocatable {
            return self.pref_address;
        }
        // No overflow: both are below 4 GiB, and the alignment is at most 2 GiB.
        self.load_address().max(self.pref_address).next_multiple_of(u64::from(self.kernel_alignment))
    }

    /// All memory that the kernel needs: from the lower of load address and unpack address to the end of the
    /// loaded code or of the memory that it unpacks into, whichever is higher.
    pub(crate) fn footprint(&self) -> Range<u64> {
        // No overflow: at most 4 GiB plus the file's length, and 6 GiB plus 4 GiB.
        let loaded_end = self.load_address() + self.kernel_len;
        let start = self.load_address().min(self.runtime_start());
        start..loaded_end.max(self.runtime_start() + u64::from(self.init_size))
    }

    /// Length of the protected-mode code: the file without boot sector and setup code.
    pub(crate) fn kernel_len(&self) -> u64 {
        self.kernel_len
    }

    /// Clears fields that this kernel's header is too short for, where its code begins instead.
    pub(crate) fn trim(&self, mut header: setup_header) -> setup_header {
        if self.header_end < HANDOVER_OFFSET_END {
            header.handover_offset = 0;
        }
        if self.header_end < KERNEL_INFO_OFFSET_END {
            header.kernel_info_offset = 0;
        }
        header
    }

    pub(crate) fn cmdline_max_len(&self) -> u64 {
        // `cmdline_size` doesn't include the NUL, `layout::CMDLINE_MAX_LEN` does.
        u64::from(self.cmdline_size).min(layout::CMDLINE_MAX_LEN - 1)
    }

    pub(crate) fn initrd_limit(&self) -> u64 {
        u64::from(self.initrd_addr_max) + 1
    }
}

impl fmt::Display for BzImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relocatable = if self.relocatable { "relocatable" } else { "not relocatable" };
        write!(
            f,
            "bzImage, boot protocol {}.{:02}, {relocatable}, unpacks to {:#x}, init_size {:#x}",
            self.version >> 8,
            self.version & 0xff,
            self.runtime_start(),
            self.init_size,
        )
    }
}

/// Whether the file starts with a boot sector and a setup header.
pub(crate) fn is_bzimage(start: &[u8; START_LEN]) -> bool {
    start[HEADER..].starts_with(HDRS)
}

/// File offset of the kernel's version text; `None` if it has none (Linux x86 boot protocol,
/// `kernel_version`).
pub(crate) fn version_text_at(start: &[u8; START_LEN]) -> Option<u64> {
    // `kernel_version` is relative to the second sector.
    Some(u16_at(start, KERNEL_VERSION))
        .filter(|offset| *offset != 0)
        .map(|offset| SECTOR_LEN + u64::from(offset))
}

/// Names a program that has a setup header but only runs by its real-mode code, which needs a BIOS.
/// `version_text` is the start of its version text.
pub(crate) fn bios_program(start: &[u8; START_LEN], version_text: &[u8]) -> Option<&'static str> {
    if version_text.starts_with(b"MEMDISK ") {
        return Some("memdisk of SYSLINUX");
    }
    // iPXE's .lkrn (src/arch/x86/prefix/lkrnprefix.S) has no protected-mode entry.
    (u32_at(start, CODE32_START) == 0)
        .then_some("a real-mode program with a kernel's header, such as iPXE's .lkrn")
}

/// Checks the setup header in `start`, the first bytes of a file of `file_len` bytes.
pub(crate) fn inspect(start: &[u8; START_LEN], file_len: u64) -> Result<BzImage, BzImageError> {
    let version = u16_at(start, VERSION);
    check_kind(start, version)?;

    let (setup_len, kernel_len) = sections(start, file_len)?;
    let kernel_alignment = u32_at(start, KERNEL_ALIGNMENT);
    if !kernel_alignment.is_power_of_two() {
        return Err(BzImageError::KernelAlignment { value: kernel_alignment });
    }
    let pref_address = u64_at(start, PREF_ADDRESS);
    if pref_address >= FOUR_GIB {
        return Err(BzImageError::PrefAddress { value: pref_address });
    }
    let init_size = u32_at(start, INIT_SIZE);
    if init_size == 0 {
        return Err(BzImageError::InitSize);
    }
    let xloadflags = if version >= XLOADFLAGS_VERSION { u16_at(start, XLOADFLAGS) } else { 0 };
    let has_entry64 = xloadflags & XLF_KERNEL_64 != 0;
    if has_entry64 && kernel_len <= ENTRY64_OFFSET {
        return Err(BzImageError::Entry64 { xloadflags, kernel_len });
    }
    Ok(BzImage {
        version,
        header_end: header_end(start),
        kernel_len,
        code32_start: u32_at(start, CODE32_START),
        kernel_alignment,
        relocatable: start[RELOCATABLE_KERNEL] != 0,
        pref_address,
        init_size,
        has_entry64,
        cmdline_size: u32_at(start, CMDLINE_SIZE),
        initrd_addr_max: u32_at(start, INITRD_ADDR_MAX),
        payload: payload(start, setup_len, kernel_len)?,
    })
}

/// End of the header, where the jump at its start leads.
fn header_end(start: &[u8; START_LEN]) -> u64 {
    HEADER as u64 + u64::from(start[JUMP_DISTANCE])
}

/// Checks that the file is a bzImage with a complete header that is new enough.
fn check_kind(start: &[u8; START_LEN], version: u16) -> Result<(), BzImageError> {
    let boot_flag = u16_at(start, BOOT_FLAG);
    if boot_flag != BOOT_MAGIC {
        return Err(BzImageError::BootFlag { value: boot_flag });
    }
    if version < MIN_VERSION {
        return Err(BzImageError::Version { version });
    }
    let end = header_end(start);
    if end < HEADER_END {
        return Err(BzImageError::HeaderEnd { end });
    }
    let loadflags = start[LOADFLAGS];
    if loadflags & LOADED_HIGH == 0 {
        return Err(BzImageError::NotHigh { loadflags });
    }
    Ok(())
}

/// Lengths of the skipped part (boot sector and setup code) and of the loaded part.
fn sections(start: &[u8; START_LEN], file_len: u64) -> Result<(u64, u64), BzImageError> {
    let sectors = start[SETUP_SECTS];
    // 0 means 4, for compatibility.
    let setup_sectors = if sectors == 0 { 4 } else { u64::from(sectors) };
    let setup_len = (1 + setup_sectors) * SECTOR_LEN;
    let kernel_len = match file_len.checked_sub(setup_len) {
        Some(len) if len > 0 => len,
        _ => return Err(BzImageError::SetupSects { sectors, setup_len, file_len }),
    };
    let syssize = u32_at(start, SYSSIZE);
    let claimed = u64::from(syssize) * PARAGRAPH_LEN;
    // `syssize` is rounded up: a file that isn't padded to a paragraph, such as memtest86+ 6.10, ends inside
    // the last one.
    if claimed >= kernel_len + PARAGRAPH_LEN {
        return Err(BzImageError::SysSize { syssize, claimed, kernel_len });
    }
    Ok((setup_len, kernel_len))
}

/// The compressed kernel, as a range of the file.
fn payload(start: &[u8; START_LEN], setup_len: u64, kernel_len: u64) -> Result<Range<u64>, BzImageError> {
    let (offset, len) = (u32_at(start, PAYLOAD_OFFSET), u32_at(start, PAYLOAD_LENGTH));
    let end = u64::from(offset) + u64::from(len);
    if end > kernel_len {
        return Err(BzImageError::Payload { offset, len, kernel_len });
    }
    Ok(setup_len + u64::from(offset)..setup_len + end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::x86_64::image::KernelImage;
    use crate::testing::{bzimage, complaint, inspected, patched};

    fn header(file: &[u8]) -> BzImage {
        match inspected(file) {
            KernelImage::BzImage(bzimage) => bzimage,
            KernelImage::Elf(_) => panic!("a bzImage"),
        }
    }

    #[test]
    fn bzimage_facts_come_from_the_header() {
        let image = header(&bzimage());
        assert_eq!(image.load_address(), 0x10_0000);
        assert_eq!(image.entry64(), Some(0x10_0200));
        assert_eq!(image.kernel_len(), 1024);
        assert_eq!(image.payload(), 0x6cc..0x7cc);
        assert_eq!((image.cmdline_max_len(), image.initrd_limit()), (255, 0x8000_0000));
    }

    #[test]
    fn bzimage_loaded_below_pref_address_unpacks_there() {
        // 2 MiB + 1 MiB of init_size.
        assert_eq!(header(&bzimage()).footprint(), 0x10_0000..0x30_0000);
    }

    #[test]
    fn bzimage_loaded_above_pref_address_unpacks_at_the_next_alignment() {
        // With `pref_address` 64 KiB it unpacks at 1 MiB rounded up to 2 MiB.
        let image = header(&patched(bzimage(), 0x258, &0x1_0000_u64.to_le_bytes()));
        assert_eq!(image.footprint(), 0x10_0000..0x30_0000);
    }

    #[test]
    fn bzimage_not_relocatable_unpacks_at_pref_address() {
        let image = patched(bzimage(), 0x258, &0x18_0000_u64.to_le_bytes());
        assert_eq!(header(&patched(image, 0x234, &[0])).footprint(), 0x10_0000..0x28_0000);
    }

    #[test]
    fn bzimage_file_longer_than_init_size_counts_whole() {
        // It unpacks at 1 MiB and claims to need 16 bytes, but 1 KiB is loaded.
        let image = patched(bzimage(), 0x258, &0x10_0000_u64.to_le_bytes());
        let image =
            patched(patched(image, 0x260, &16_u32.to_le_bytes()), 0x230, &0x10_0000_u32.to_le_bytes());
        assert_eq!(header(&image).footprint(), 0x10_0000..0x10_0400);
    }

    #[test]
    fn bzimage_setup_sects_0_means_4() {
        // 5 sectors of 512 bytes before the kernel.
        let image = [patched(bzimage(), 0x1f1, &[0]), vec![0xcc; 1536]].concat();
        assert_eq!(header(&image).kernel_len(), 3584 - 2560);
    }

    #[test]
    fn bzimage_before_2_12_has_no_xloadflags() {
        assert_eq!(header(&patched(bzimage(), 0x206, &[0x0b, 2])).entry64(), None);
    }

    #[test]
    fn bzimage_cmdline_size_beyond_the_layout_is_limited_by_the_layout() {
        let image = header(&patched(bzimage(), 0x238, &u32::MAX.to_le_bytes()));
        assert_eq!(image.cmdline_max_len(), 0xffff);
    }

    #[test]
    fn bzimage_short_header_keeps_its_code_out_of_the_zero_page() {
        // The jump leads to 0x264, just past `init_size`: the rest is code.
        let image = header(&patched(bzimage(), 0x201, &[0x62]));
        let found =
            setup_header { init_size: 7, handover_offset: 8, kernel_info_offset: 9, ..Default::default() };
        let expected = setup_header { init_size: 7, ..Default::default() };
        assert_eq!(image.trim(found), expected);
    }

    #[test]
    fn bzimage_wrong_boot_flag_is_refused() {
        assert_eq!(complaint(&patched(bzimage(), 0x1fe, &[0, 0])), "boot_flag 0x0000: a bzImage has 0xaa55");
    }

    #[test]
    fn bzimage_old_protocol_is_refused() {
        let expected = "boot protocol 2.09: 2.10 (Linux 2.6.31) or newer is needed";
        assert_eq!(complaint(&patched(bzimage(), 0x206, &[9, 2])), expected);
    }

    #[test]
    fn bzimage_header_without_init_size_is_refused() {
        let expected = "the setup header ends at 0x263, before its init_size at 0x260";
        assert_eq!(complaint(&patched(bzimage(), 0x201, &[0x61])), expected);
    }

    #[test]
    fn bzimage_zimage_is_refused() {
        let expected = "loadflags 0x80: a zImage, which is loaded below 1 MiB; a bzImage is needed";
        assert_eq!(complaint(&patched(bzimage(), 0x211, &[0x80])), expected);
    }

    #[test]
    fn bzimage_setup_beyond_the_file_is_refused() {
        let expected = "setup_sects 255: the kernel would start at byte 131072, the file ends after 2048";
        assert_eq!(complaint(&patched(bzimage(), 0x1f1, &[255])), expected);
    }

    #[test]
    fn bzimage_that_ends_with_its_setup_is_refused() {
        let expected = "setup_sects 1: the kernel would start at byte 1024, the file ends after 1024";
        assert_eq!(complaint(&bzimage()[..1024]), expected);
    }

    #[test]
    fn bzimage_truncated_kernel_is_refused() {
        let expected = "syssize 0x40: 1024 bytes of kernel, the file holds 1008; it was cut, copy it again";
        assert_eq!(complaint(&bzimage()[..2032]), expected);
    }

    /// memtest86+ 6.10 ends 8 bytes before what its syssize says.
    #[test]
    fn bzimage_whose_last_paragraph_is_not_full_is_taken() {
        assert_eq!(header(&bzimage()[..2033]).kernel_len(), 1009);
        assert_eq!(header(&bzimage()[..2040]).kernel_len(), 1016);
    }

    /// As in Debian's ipxe 1.0.0+git-20190125, which has no protected-mode entry.
    #[test]
    fn bzimage_without_protected_mode_code_needs_a_bios() {
        let expected = "a real-mode program with a kernel's header, such as iPXE's .lkrn: it needs a BIOS, and there is none \
                        here; boot the kernel and the initrd that it would load";
        let ipxe = patched(patched(bzimage(), 0x214, &[0; 4]), 0x206, &[7, 2]);
        assert_eq!(complaint(&ipxe), expected);
    }

    /// As in Debian's syslinux-common 6.04, whose version text is at 0x200 + 0x3b0.
    #[test]
    fn bzimage_that_is_memdisk_needs_a_bios() {
        let named = patched(patched(bzimage(), 0x20e, &[0xb0, 3]), 0x5b0, b"MEMDISK 6.04 20200816\0");
        let expected = "memdisk of SYSLINUX: it needs a BIOS, and there is none here; boot the kernel and the initrd that it \
                        would load";
        assert_eq!(complaint(&patched(named, 0x206, &[3, 2])), expected);
    }

    #[test]
    fn bzimage_with_its_version_text_beyond_the_file_is_taken() {
        header(&patched(bzimage(), 0x20e, &[0xff, 0xff]));
    }

    #[test]
    fn bzimage_syssize_larger_than_the_file_is_refused() {
        let expected =
            "syssize 0xffffffff: 68719476720 bytes of kernel, the file holds 1024; it was cut, copy it again";
        assert_eq!(complaint(&patched(bzimage(), 0x1f4, &[0xff; 4])), expected);
    }

    #[test]
    fn bzimage_payload_outside_the_kernel_is_refused() {
        let expected = "payload_offset 0x2cc + payload_length 0x135 is outside the kernel's 0x400 bytes";
        assert_eq!(complaint(&patched(bzimage(), 0x24c, &0x135_u32.to_le_bytes())), expected);
    }

    #[test]
    fn bzimage_payload_beyond_32_bits_is_refused() {
        let expected =
            "payload_offset 0xffffffff + payload_length 0xffffffff is outside the kernel's 0x400 bytes";
        assert_eq!(complaint(&patched(bzimage(), 0x248, &[0xff; 8])), expected);
    }

    #[test]
    fn bzimage_alignment_not_a_power_of_two_is_refused() {
        let expected = "kernel_alignment 0x30000 is not a power of two";
        assert_eq!(complaint(&patched(bzimage(), 0x230, &0x3_0000_u32.to_le_bytes())), expected);
        let expected = "kernel_alignment 0x0 is not a power of two";
        assert_eq!(complaint(&patched(bzimage(), 0x230, &[0; 4])), expected);
    }

    #[test]
    fn bzimage_pref_address_beyond_4_gib_is_refused() {
        let expected = "pref_address 0x100000000 is beyond 4 GiB";
        assert_eq!(complaint(&patched(bzimage(), 0x258, &0x1_0000_0000_u64.to_le_bytes())), expected);
    }

    #[test]
    fn bzimage_init_size_0_is_refused() {
        assert_eq!(complaint(&patched(bzimage(), 0x260, &[0; 4])), "init_size is 0");
    }

    #[test]
    fn bzimage_64_bit_entry_beyond_the_kernel_is_refused() {
        // 512 bytes of kernel, with matching payload and syssize.
        let image = patched(patched(bzimage(), 0x248, &[0; 8]), 0x1f4, &32_u32.to_le_bytes());
        let expected = "xloadflags 0x7f: a 64-bit entry at 0x200, but the kernel has 512 bytes";
        assert_eq!(complaint(&image[..1536]), expected);
    }
}
