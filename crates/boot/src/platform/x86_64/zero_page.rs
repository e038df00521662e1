//! The zero page, `struct boot_params` (Linux x86 boot protocol; Linux Documentation/arch/x86/zero-page.rst).

use std::ops::Range;

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vmm_arch::e820::E820Entry;

use crate::platform::x86_64::elf::ELF_CMDLINE_MAX_LEN;

/// Maximum number of entries in the zero page (Linux E820_MAX_ENTRIES_ZEROPAGE).
pub(crate) const E820_MAX: usize = 128;

/// `hdr.boot_flag` and `hdr.header`, "HdrS".
const BOOT_FLAG: u16 = 0xaa55;
const HEADER: u32 = 0x5372_6448;
/// `hdr.version` for a kernel without a setup header: 2.15, the latest.
const VERSION: u16 = 0x020f;
/// `hdr.type_of_loader`: a boot loader without an assigned number.
const UNDEFINED_LOADER: u8 = 0xff;
/// `hdr.loadflags`: loaded at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// `hdr.vid_mode`: "normal", the default of boot loaders.
const VID_MODE_NORMAL: u16 = 0xffff;
/// `hdr.kernel_alignment` of a kernel without a setup header: Linux's default, CONFIG_PHYSICAL_ALIGN.
const KERNEL_ALIGNMENT: u32 = 0x20_0000;

/// The setup header for an ELF, which has none: the fields that a boot loader would have copied from it.
pub(crate) fn elf_header() -> setup_header {
    setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER,
        version: VERSION,
        loadflags: LOADED_HIGH,
        kernel_alignment: KERNEL_ALIGNMENT,
        cmdline_size: ELF_CMDLINE_MAX_LEN as u32,
        ..Default::default()
    }
}

/// Builds the zero page from the file's setup header, or [`elf_header`]. The command line is at `cmdline`.
///
/// There are at most [`E820_MAX`] entries. Unset fields are 0, including `sentinel`: if that isn't 0, Linux
/// clears most of the page.
pub(crate) fn build(
    header: setup_header,
    initrd: Option<Range<u64>>,
    cmdline: u64,
    e820: &[E820Entry],
) -> boot_params {
    let mut page = boot_params { hdr: header, ..Default::default() };
    page.hdr.type_of_loader = UNDEFINED_LOADER;
    page.hdr.vid_mode = VID_MODE_NORMAL;
    // Only a boot loader may set this list; a value in the file isn't a guest address.
    page.hdr.setup_data = 0;

    (page.hdr.cmd_line_ptr, page.ext_cmd_line_ptr) = halves(cmdline);
    let initrd = initrd.unwrap_or_default();
    (page.hdr.ramdisk_image, page.ext_ramdisk_image) = halves(initrd.start);
    (page.hdr.ramdisk_size, page.ext_ramdisk_size) = halves(initrd.end - initrd.start);

    let mut table = [boot_e820_entry::default(); E820_MAX];
    for (slot, entry) in table.iter_mut().zip(e820) {
        *slot = boot_e820_entry { addr: entry.addr, size: entry.len, r#type: entry.kind as u32 };
    }
    page.e820_table = table;
    page.e820_entries = e820.len().min(E820_MAX) as u8;
    page
}

/// The low and high 32 bits.
fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
