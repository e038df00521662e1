//! Decides where a flat image goes and where it starts.

use std::ops::Range;

use vmm_arch::flat::{Mode, Table};
use vmm_arch::layout::{self, HIGH_MEMORY, MMIO_GAP};
use vmm_memory::PAGE_LEN;

use crate::elf_header::Segment;
use crate::flat::elf::FlatElf;
use crate::flat::error::FlatPlanError;
use crate::flat::image::FlatImage;
use crate::flat::multiboot::Body;
use crate::flat::plan::FlatSpec;

/// The image in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// What is loaded where, in ascending order; never empty, never overlapping, all of it in RAM below the
    /// MMIO gap.
    pub(crate) segments: Vec<Segment>,
    /// What the addresses of a position-independent executable are moved by, modulo 2^64.
    pub(crate) bias: u64,
    /// Whether `load_address` says where it goes.
    pub(crate) movable: bool,
    /// Where a reset image would start if it ended at 1 MiB, unless that is where it starts.
    pub(crate) rounded_from: Option<u64>,
    /// The image's own entry, as far as it has one.
    entry: OwnEntry,
}

impl Placed {
    /// The addresses that are filled from the file.
    pub(crate) fn filled(&self) -> Vec<Range<u64>> {
        let filled = self.segments.iter().map(Segment::file_backed);
        filled.filter(|range| !range.is_empty()).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnEntry {
    /// A physical address, perhaps outside the image.
    At(u64),
    /// A virtual address outside the image.
    Nowhere(u64),
}

/// The first instruction after reset.
const RESET_VECTOR: u64 = 0xffff_fff0;
/// The same as the image has it, at the end of the first MiB.
pub(crate) const RESET_VECTOR_IN_IMAGE: u64 = layout::RESET_IMAGE_END - 0x10;
/// What a stack needs at least, by our guess, if nobody says so: some calls, and an interrupt.
const LEAST_STACK_LEN: u64 = 0x100;
/// First address above what SP can address with SS 0.
const REAL_STACK_END: u64 = 0x1_0000;

/// The mode that is asked for, if the image can be started in it.
pub(crate) fn mode(spec: &FlatSpec<'_>) -> Result<Mode, FlatPlanError> {
    let mode = spec.mode.unwrap_or_else(|| spec.image.default_mode());
    match (spec.image, mode) {
        (FlatImage::Elf(_), Mode::Real | Mode::Reset) => Err(FlatPlanError::ElfMode { mode }),
        (FlatImage::Multiboot(_), Mode::Real | Mode::Reset | Mode::Paged | Mode::Long) => {
            Err(FlatPlanError::MultibootMode { mode })
        }
        _ => Ok(mode),
    }
}

/// Places the image in RAM that ends at `ram_end`, below the MMIO gap.
pub(crate) fn image(spec: &FlatSpec<'_>, mode: Mode, ram_end: u64) -> Result<Placed, FlatPlanError> {
    if let Some(address) = spec.load_address {
        check_movable(spec.image)?;
        check_load_address(address, ram_end)?;
    }
    let placed = match spec.image {
        FlatImage::Raw { len } => raw(*len, spec.load_address, mode, ram_end)?,
        FlatImage::Elf(image) => elf(image, spec.load_address, ram_end)?,
        FlatImage::Multiboot(image) => match image.body() {
            Body::Elf(image) => elf(image, spec.load_address, ram_end)?,
            &Body::Addresses { segment, entry } => Placed {
                segments: vec![segment],
                bias: 0,
                movable: false,
                rounded_from: None,
                entry: OwnEntry::At(entry),
            },
        },
    };
    for segment in &placed.segments {
        check_segment(segment.memory(), placed.movable, ram_end)?;
    }
    if mode == Mode::Reset {
        check_reset(&placed.segments[0].memory(), ram_end)?;
    }
    Ok(placed)
}

/// The address of the first instruction.
pub(crate) fn entry(spec: &FlatSpec<'_>, mode: Mode, placed: &Placed) -> Result<u64, FlatPlanError> {
    if mode == Mode::Reset {
        return spec.entry.map_or(Ok(RESET_VECTOR), |_| Err(FlatPlanError::ResetEntry));
    }
    let filled = placed.filled();
    let inside = |entry: u64| filled.iter().any(|range| range.contains(&entry));
    let entry = match (spec.entry, placed.entry) {
        (Some(entry), _) if inside(entry) => entry,
        (Some(entry), _) => return Err(FlatPlanError::EntryOutside { entry, image: filled }),
        (None, OwnEntry::At(entry)) if inside(entry) => entry,
        (None, OwnEntry::At(entry) | OwnEntry::Nowhere(entry)) => {
            return Err(FlatPlanError::OwnEntryOutside { entry, image: filled });
        }
    };
    if mode == Mode::Real && entry >= HIGH_MEMORY {
        return Err(FlatPlanError::EntryTooHigh { entry });
    }
    Ok(entry)
}

/// First address above the stack; 0 after reset, when there is none.
pub(crate) fn stack(
    spec: &FlatSpec<'_>,
    mode: Mode,
    placed: &Placed,
    ram_end: u64,
) -> Result<u64, FlatPlanError> {
    if mode == Mode::Reset {
        return spec.stack.map_or(Ok(0), |_| Err(FlatPlanError::ResetStack));
    }
    let inside = |stack: u64| (1..=ram_end).contains(&stack);
    match spec.stack {
        Some(stack) if mode == Mode::Real && stack > REAL_STACK_END => {
            Err(FlatPlanError::StackTooHigh { stack })
        }
        Some(stack) if inside(stack) => Ok(stack),
        Some(stack) => Err(FlatPlanError::StackOutside { stack, ram_end }),
        None => default_stack(placed, ram_end),
    }
}

/// The memory that is kept free for a stack below `stack`: all of the default one's, a little of any other's, whose user knows
/// how much it needs.
pub(crate) fn stack_room(stack: u64) -> Range<u64> {
    let len = if stack == layout::BOOT_STACK { layout::BOOT_STACK_LEN } else { LEAST_STACK_LEN };
    stack.saturating_sub(len)..stack
}

/// The addresses of a table.
pub(crate) fn range(table: &Table) -> Range<u64> {
    table.gpa..table.gpa + table.bytes.len() as u64
}

/// Refuses what a multiboot kernel is handed, `tables`, if it has no RAM or the image lies there.
pub(crate) fn check_handed(placed: &Placed, tables: &[Table], ram_end: u64) -> Result<(), FlatPlanError> {
    if let Some(table) = tables.iter().find(|table| range(table).end > ram_end) {
        return Err(FlatPlanError::HandedOutside { what: table.what, table: range(table), ram_end });
    }
    for image in placed.segments.iter().map(Segment::memory) {
        for table in tables {
            let range = range(table);
            if overlap(&image, &range) {
                let (what, movable) = (table.what, placed.movable);
                return Err(FlatPlanError::Overlap { image, what, table: range, movable });
            }
        }
    }
    Ok(())
}

/// Below [`layout::BOOT_STACK`], or below the end of RAM where that is lower: there an image may fill all memory, and is thought
/// to know what it does.
fn default_stack(placed: &Placed, ram_end: u64) -> Result<u64, FlatPlanError> {
    if ram_end < layout::BOOT_STACK {
        return Ok(ram_end);
    }
    let stack = layout::BOOT_STACK;
    let room = stack_room(stack);
    match placed.segments.iter().map(Segment::memory).find(|image| overlap(image, &room)) {
        Some(image) => Err(FlatPlanError::DefaultStackCovered { image, stack: room }),
        None => Ok(stack),
    }
}

fn raw(len: u64, load_address: Option<u64>, mode: Mode, ram_end: u64) -> Result<Placed, FlatPlanError> {
    if mode == Mode::Reset && len > layout::RESET_IMAGE_END {
        return Err(FlatPlanError::ResetImageTooLarge { len });
    }
    if len > ram_end {
        return Err(FlatPlanError::ImageTooLarge { len, ram_end });
    }
    let unrounded = load_address.unwrap_or(match mode {
        Mode::Real => 0,
        Mode::Reset => layout::RESET_IMAGE_END - len,
        Mode::Protected | Mode::Paged | Mode::Long => HIGH_MEMORY,
    });
    // A linker ends a file with its last instruction, the jump at the reset vector, and leaves out the rest of the page.
    // The page is what such an image is aligned to: one of 0xfff5 bytes is meant for 0xf0000.
    let rounds = mode == Mode::Reset && load_address.is_none() && !unrounded.is_multiple_of(PAGE_LEN);
    let start = if rounds { unrounded & !(PAGE_LEN - 1) } else { unrounded };
    let segment = Segment { offset: 0, paddr: start, file_len: len, mem_len: len };
    Ok(Placed {
        segments: vec![segment],
        bias: 0,
        movable: true,
        rounded_from: rounds.then_some(unrounded),
        entry: OwnEntry::At(start),
    })
}

fn elf(elf: &FlatElf, load_address: Option<u64>, ram_end: u64) -> Result<Placed, FlatPlanError> {
    let segments = elf.segments();
    let movable = elf.is_position_independent();
    let mut bias = 0;
    if movable {
        let start = load_address.unwrap_or(HIGH_MEMORY);
        if !start.is_multiple_of(PAGE_LEN) {
            return Err(FlatPlanError::LoadAddressUnaligned { address: start });
        }
        // The page of the first segment comes to the load address.
        let (first, last) = (segments.first(), segments.last());
        let page = first.map_or(0, |segment| segment.paddr) & !(PAGE_LEN - 1);
        let len = last.map_or(0, |segment| segment.memory().end) - page;
        if len > ram_end {
            return Err(FlatPlanError::ImageTooLarge { len, ram_end });
        }
        bias = start.wrapping_sub(page);
    }
    // No overflow: moved segments end below twice the end of RAM.
    let segments =
        segments.iter().map(|segment| Segment { paddr: segment.paddr.wrapping_add(bias), ..*segment });
    let entry = match elf.entry() {
        Some(entry) => OwnEntry::At(entry.wrapping_add(bias)),
        None => OwnEntry::Nowhere(elf.e_entry()),
    };
    Ok(Placed { segments: segments.collect(), bias, movable, rounded_from: None, entry })
}

/// Refuses a load address for what has its own.
fn check_movable(image: &FlatImage) -> Result<(), FlatPlanError> {
    let what = match (image, image.elf()) {
        (FlatImage::Raw { .. }, _) => return Ok(()),
        (_, Some(elf)) if elf.is_position_independent() => return Ok(()),
        (_, Some(_)) => "an executable",
        (_, None) => "a multiboot header with addresses",
    };
    Err(FlatPlanError::LoadAddressFixed { what })
}

fn check_load_address(address: u64, ram_end: u64) -> Result<(), FlatPlanError> {
    match address {
        address if address >= MMIO_GAP.end => Err(FlatPlanError::LoadAddressTooHigh { address }),
        address if address >= MMIO_GAP.start => Err(FlatPlanError::LoadAddressInGap { address }),
        address if address >= ram_end => Err(FlatPlanError::LoadAddressOutside { address, ram_end }),
        _ => Ok(()),
    }
}

fn check_segment(image: Range<u64>, movable: bool, ram_end: u64) -> Result<(), FlatPlanError> {
    match image {
        image if image.start >= MMIO_GAP.end => Err(FlatPlanError::ImageTooHigh { image, movable }),
        image if image.end > MMIO_GAP.start => Err(FlatPlanError::ImageInGap { image, movable }),
        image if image.end > ram_end => Err(FlatPlanError::ImageOutside { image, ram_end }),
        _ => Ok(()),
    }
}

/// Whether the processor finds the image at its reset vector, through the alias.
fn check_reset(image: &Range<u64>, ram_end: u64) -> Result<(), FlatPlanError> {
    if !image.contains(&RESET_VECTOR_IN_IMAGE) {
        return Err(FlatPlanError::ResetVector { image: image.clone() });
    }
    // All of what the alias shows has to be RAM, even where the image is shorter.
    if ram_end < layout::RESET_IMAGE_END {
        let image = image.start..layout::RESET_IMAGE_END;
        return Err(FlatPlanError::ImageOutside { image, ram_end });
    }
    Ok(())
}

pub(crate) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use vmm_arch::flat::Tables;

    use super::*;
    use crate::flat::plan::FlatPlan;
    use crate::flat::testing::{
        elf32, elf64, inspected, load, multiboot_elf, multiboot_header, multiboot_raw, pie64, spec,
    };

    /// What is said of `file` on 4 MiB of RAM, asked for as in `change`.
    fn complaint(file: &[u8], change: impl FnOnce(&mut FlatSpec<'_>)) -> String {
        complaint_on(4 << 20, file, change)
    }

    fn complaint_on(ram_len: u64, file: &[u8], change: impl FnOnce(&mut FlatSpec<'_>)) -> String {
        let (image, ram) = (inspected(file), layout::ram_ranges(ram_len));
        let mut spec = spec(&image, &ram);
        change(&mut spec);
        FlatPlan::new(&spec).unwrap_err().to_string()
    }

    fn elf64_at(paddr: u64, mem_len: u64) -> Vec<u8> {
        elf64(2, paddr, &[load(paddr, 16, mem_len)])
    }

    #[test]
    fn mode_real_of_an_elf_is_refused() {
        let expected =
            "boot.flat.mode \"real\": an ELF is started in \"protected\", \"paged\" or \"long\" mode";
        let said = complaint(&elf64_at(0x10_0000, 16), |spec| spec.mode = Some(Mode::Real));
        assert_eq!(said, expected);
    }

    #[test]
    fn mode_long_of_a_multiboot_image_is_refused() {
        let expected = "boot.flat.mode \"long\": a multiboot image is started in \"protected\" mode; remove the setting, or \
                        set boot.flat.format to \"raw\" if it only looks like one";
        assert_eq!(complaint(&multiboot_elf(0), |spec| spec.mode = Some(Mode::Long)), expected);
    }

    #[test]
    fn mode_of_an_elf_may_be_any_with_32_or_64_bits() {
        let (image, ram) = (inspected(&elf64_at(0x10_0000, 16)), layout::ram_ranges(4 << 20));
        let mode = |mode| FlatPlan::new(&FlatSpec { mode: Some(mode), ..spec(&image, &ram) }).is_ok();
        assert!(mode(Mode::Protected) && mode(Mode::Paged) && mode(Mode::Long));
    }

    #[test]
    fn load_address_of_an_executable_is_refused() {
        let expected = "boot.flat.load_address: an executable says itself where it goes; remove the setting";
        let said = complaint(&elf64_at(0x10_0000, 16), |spec| spec.load_address = Some(0x20_0000));
        assert_eq!(said, expected);
        assert_eq!(complaint(&multiboot_elf(0), |spec| spec.load_address = Some(0x20_0000)), expected);
    }

    #[test]
    fn load_address_of_multiboot_addresses_is_refused() {
        let file = multiboot_raw(0, [0x10_0000, 0x10_0000, 0, 0, 0x10_0020], 100);
        let expected = "boot.flat.load_address: a multiboot header with addresses says itself where it goes; \
                        remove the setting";
        assert_eq!(complaint(&file, |spec| spec.load_address = Some(0x20_0000)), expected);
    }

    #[test]
    fn load_address_of_a_position_independent_executable_inside_a_page_is_refused() {
        let expected = "boot.flat.load_address 0x100800: a position-independent executable is loaded at a \
                        multiple of 0x1000";
        assert_eq!(complaint(&pie64(&[], &[]), |spec| spec.load_address = Some(0x10_0800)), expected);
    }

    #[test]
    fn load_address_in_the_mmio_gap_is_refused() {
        let expected = "boot.flat.load_address 0xd0000000 lies in the 32-bit MMIO gap \
                        0xc0000000..0x100000000; use one below it";
        assert_eq!(complaint(b"\xf4", |spec| spec.load_address = Some(0xd000_0000)), expected);
        assert_eq!(complaint_on(8 << 30, b"\xf4", |spec| spec.load_address = Some(0xd000_0000)), expected);
    }

    #[test]
    fn load_address_above_4_gib_is_refused() {
        let expected = "boot.flat.load_address 0x100000000 lies above 4 GiB; use one below the 32-bit MMIO gap \
                        at 0xc0000000";
        assert_eq!(complaint_on(8 << 30, b"\xf4", |spec| spec.load_address = Some(1 << 32)), expected);
    }

    #[test]
    fn load_address_outside_memory_is_refused() {
        let expected = "boot.flat.load_address 0x400000 lies outside the guest's memory, which ends at \
                        0x400000; use one below that";
        assert_eq!(complaint(b"\xf4", |spec| spec.load_address = Some(0x40_0000)), expected);
    }

    #[test]
    fn image_larger_than_memory_says_how_much_would_do() {
        let expected = "the image needs 4194305 bytes, but the guest's memory below the 32-bit MMIO gap has \
                        4194304; give the guest at least 5 MiB";
        assert_eq!(complaint(&vec![0; (4 << 20) + 1], |_| {}), expected);
    }

    #[test]
    fn image_larger_than_any_memory_is_hopeless() {
        // A position-independent executable with a BSS of 4 GiB.
        let file = elf64(3, 0, &[load(0, 16, 1 << 32)]);
        let expected = "the image needs 4294967296 bytes, but the guest's memory below the 32-bit MMIO gap has \
                        4194304; no guest has more than 3221225472 there, so use a smaller one";
        assert_eq!(complaint(&file, |_| {}), expected);
    }

    #[test]
    fn image_that_ends_beyond_memory_says_how_much_would_do() {
        let expected = "the image at 0x3fffff..0x400001 ends beyond the guest's memory, which ends at 0x400000; \
                        give the guest at least 5 MiB";
        assert_eq!(complaint(b"\xf4\xf4", |spec| spec.load_address = Some(0x3f_ffff)), expected);
    }

    #[test]
    fn image_that_reaches_into_the_mmio_gap_is_refused() {
        let expected = "the image at 0xbffff000..0xc0000001 reaches into the 32-bit MMIO gap \
                        0xc0000000..0x100000000; link it elsewhere";
        assert_eq!(complaint_on(8 << 30, &elf64_at(0xbfff_f000, 0x1001), |_| {}), expected);
        let expected = "the image at 0xbfffffff..0xc0000001 reaches into the 32-bit MMIO gap \
                        0xc0000000..0x100000000; load it elsewhere (boot.flat.load_address)";
        let said = complaint_on(8 << 30, b"\xf4\xf4", |spec| spec.load_address = Some(0xbfff_ffff));
        assert_eq!(said, expected);
    }

    #[test]
    fn image_above_4_gib_is_refused() {
        let expected = "the image at 0x100000000..0x100000010 lies above 4 GiB, but has to lie below the 32-bit \
                        MMIO gap at 0xc0000000; link it elsewhere";
        assert_eq!(complaint_on(8 << 30, &elf64_at(1 << 32, 16), |_| {}), expected);
    }

    #[test]
    fn image_without_ram_is_refused() {
        let image = inspected(b"\xf4");
        let expected = "the image needs 1 bytes, but the guest's memory below the 32-bit MMIO gap has 0; give \
                        the guest at least 4 KiB";
        assert_eq!(FlatPlan::new(&spec(&image, &[])).unwrap_err().to_string(), expected);
    }

    #[test]
    fn image_over_the_tables_makes_them_move() {
        let tables = |file: &[u8], mode, load_address| {
            let (image, ram) = (inspected(file), layout::ram_ranges(4 << 20));
            let spec = FlatSpec { mode: Some(mode), load_address, ..spec(&image, &ram) };
            FlatPlan::new(&spec).unwrap().start().tables
        };
        let written = |gdt, idt, page_tables| Tables::Written { gdt, idt, page_tables };
        // Over the GDT's first byte, the last page of the page tables, the last byte of the page directory.
        assert_eq!(tables(&[0xf4; 0x101], Mode::Protected, Some(0x400)), written(0x510, 0x540, 0x9000));
        assert_eq!(tables(&elf64_at(0xe000, 16), Mode::Long, None), written(0x500, 0x530, 0x1000));
        assert_eq!(tables(&elf64_at(0x9fff, 16), Mode::Paged, None), written(0x500, 0x530, 0x1000));
    }

    /// The stack's room counts as taken.
    #[test]
    fn stack_in_the_page_tables_makes_them_move() {
        let (image, ram) = (inspected(b"\xf4"), layout::ram_ranges(4 << 20));
        let spec = FlatSpec { mode: Some(Mode::Long), stack: Some(0xa000), ..spec(&image, &ram) };
        let expected = Tables::Written { gdt: 0x500, idt: 0x530, page_tables: 0x1000 };
        assert_eq!(FlatPlan::new(&spec).unwrap().start().tables, expected);
    }

    #[test]
    fn image_over_the_multiboot_information_is_refused() {
        let mut text = load(0x5000, 64, 64);
        text.bytes[..12].copy_from_slice(&multiboot_header(0));
        let expected = "the image at 0x5000..0x5040 overlaps the multiboot information at 0x5000..0x5074; link \
                        it elsewhere";
        assert_eq!(complaint(&elf32(2, 0x500c, &[text]), |_| {}), expected);
    }

    #[test]
    fn entry_outside_the_image_is_refused() {
        let expected = "boot.flat.entry 0x10 lies outside the image's bytes at 0x0..0x10";
        assert_eq!(complaint(&[0xf4; 16], |spec| spec.entry = Some(0x10)), expected);
    }

    #[test]
    fn entry_in_the_bss_is_outside_the_image() {
        let file = elf64(2, 0x10_0000, &[load(0x10_0000, 16, 4096), load(0x20_0000, 4, 4)]);
        let expected = "boot.flat.entry 0x100010 lies outside the image's bytes at 0x100000..0x100010, \
                        0x200000..0x200004";
        assert_eq!(complaint(&file, |spec| spec.entry = Some(0x10_0010)), expected);
    }

    #[test]
    fn entry_of_an_elf_outside_its_segments_is_refused() {
        let file = elf64(2, 0x20_0000, &[load(0x10_0000, 16, 16)]);
        let expected = "the image's own entry 0x200000 lies outside its bytes at 0x100000..0x100010; set \
                        boot.flat.entry";
        assert_eq!(complaint(&file, |_| {}), expected);
    }

    #[test]
    fn entry_that_is_set_replaces_one_that_leads_nowhere() {
        let file = elf64(2, 0x20_0000, &[load(0x10_0000, 16, 16)]);
        let (image, ram) = (inspected(&file), layout::ram_ranges(4 << 20));
        let plan = FlatPlan::new(&FlatSpec { entry: Some(0x10_0008), ..spec(&image, &ram) }).unwrap();
        assert_eq!(plan.start().entry, 0x10_0008);
    }

    #[test]
    fn entry_of_multiboot_addresses_outside_what_is_loaded_is_refused() {
        let file = multiboot_raw(0, [0x10_0000, 0x10_0000, 0, 0, 0x10_0064], 100);
        let expected = "the image's own entry 0x100064 lies outside its bytes at 0x100000..0x100064; set \
                        boot.flat.entry";
        assert_eq!(complaint(&file, |_| {}), expected);
    }

    #[test]
    fn entry_above_1_mib_in_real_mode_is_refused() {
        let expected = "the entry 0x100000 is above 1 MiB, out of reach in \"real\" mode; start the image below \
                        0x100000";
        assert_eq!(complaint(b"\xf4", |spec| spec.load_address = Some(0x10_0000)), expected);
    }

    #[test]
    fn stack_at_the_end_of_ram_is_taken() {
        let (image, ram) = (inspected(b"\xf4"), layout::ram_ranges(4 << 20));
        let spec = FlatSpec { mode: Some(Mode::Long), stack: Some(4 << 20), ..spec(&image, &ram) };
        assert_eq!(FlatPlan::new(&spec).unwrap().start().stack, 4 << 20);
    }

    #[test]
    fn stack_outside_ram_is_refused() {
        let expected = "boot.flat.stack 0x400001 lies outside the RAM at 0x0..0x400000; use an address in it or \
                        its end";
        let said = complaint(b"\xf4", |spec| {
            (spec.mode, spec.stack) = (Some(Mode::Long), Some((4 << 20) + 1));
        });
        assert_eq!(said, expected);
    }

    #[test]
    fn stack_0_is_refused() {
        let expected =
            "boot.flat.stack 0x0 lies outside the RAM at 0x0..0x400000; use an address in it or its end";
        assert_eq!(complaint(b"\xf4", |spec| spec.stack = Some(0)), expected);
    }

    #[test]
    fn stack_above_64_kib_in_real_mode_is_refused() {
        let expected = "boot.flat.stack 0x10001 is out of reach in \"real\" mode; use at most 0x10000";
        assert_eq!(complaint(b"\xf4", |spec| spec.stack = Some(0x1_0001)), expected);
    }

    #[test]
    fn stack_by_default_inside_the_image_is_refused() {
        let expected = "the image at 0x0..0x10000 covers the default stack at 0x80f0..0x8ff0; set boot.flat.stack (--stack)";
        assert_eq!(complaint(&[0; 0x1_0000], |_| {}), expected);
    }

    #[test]
    fn stack_by_default_ends_with_a_small_ram() {
        let stack = |ram_len| {
            let (image, ram) = (inspected(b"\xf4"), layout::ram_ranges(ram_len));
            FlatPlan::new(&spec(&image, &ram)).unwrap().start().stack
        };
        assert_eq!((stack(0x1000), stack(0x8000), stack(0x9000)), (0x1000, 0x8000, 0x8ff0));
    }

    #[test]
    fn stack_by_default_in_a_page_that_the_image_fills_is_its_end() {
        let (image, ram) = (inspected(&[0xf4; 0x1000]), layout::ram_ranges(0x1000));
        assert_eq!(FlatPlan::new(&spec(&image, &ram)).unwrap().start().stack, 0x1000);
    }

    /// Its information would lie at 0x5000.
    #[test]
    fn image_multiboot_in_16_kib_is_refused() {
        let file = multiboot_raw(0, [0x1000, 0x1000, 0, 0, 0x1020], 100);
        let expected = "the multiboot information at 0x5000..0x5074 lies beyond the guest's memory, which ends at 0x4000; \
                        give the guest at least 24 KiB";
        assert_eq!(complaint_on(0x4000, &file, |_| {}), expected);
    }

    #[test]
    fn reset_image_of_more_than_1_mib_is_refused() {
        let expected = "the image has 1048577 bytes; in \"reset\" mode it ends at or below 1 MiB and has at most 1048576";
        assert_eq!(complaint(&vec![0; 0x10_0001], |spec| spec.mode = Some(Mode::Reset)), expected);
    }

    #[test]
    fn reset_image_without_the_reset_vector_is_refused() {
        let expected = "the image at 0xfffef..0xffff0 doesn't contain 0xffff0, where the processor starts in \
                        \"reset\" mode; link it so that its first jump is 16 bytes before the end of a page, or load it \
                        where that comes to lie at 0xffff0 (boot.flat.load_address, --load-address)";
        let said = complaint(b"\xf4", |spec| {
            (spec.mode, spec.load_address) = (Some(Mode::Reset), Some(0xf_ffef));
        });
        assert_eq!(said, expected);
    }

    /// Rounded down to a page it ends far below the vector.
    #[test]
    fn reset_image_of_less_than_a_page_has_to_be_given_its_place() {
        let expected = "the image at 0xff000..0xff020 doesn't contain 0xffff0, where the processor starts in \
                        \"reset\" mode; link it so that its first jump is 16 bytes before the end of a page, or load it \
                        where that comes to lie at 0xffff0 (boot.flat.load_address, --load-address)";
        assert_eq!(complaint(&[0xf4; 0x20], |spec| spec.mode = Some(Mode::Reset)), expected);
        let (image, ram) = (inspected(&[0xf4; 0x20]), layout::ram_ranges(1 << 20));
        let named = FlatSpec { mode: Some(Mode::Reset), load_address: Some(0xf_ffe0), ..spec(&image, &ram) };
        assert!(FlatPlan::new(&named).is_ok());
    }

    #[test]
    fn reset_image_in_less_than_1_mib_is_refused() {
        let expected = "the image at 0xff000..0x100000 ends beyond the guest's memory, which ends at 0x80000; \
                        give the guest at least 1 MiB";
        let said = complaint_on(0x8_0000, &[0; 0x1000], |spec| spec.mode = Some(Mode::Reset));
        assert_eq!(said, expected);
    }

    #[test]
    fn reset_entry_and_stack_are_refused() {
        let reset = |change: fn(&mut FlatSpec<'_>)| {
            complaint(&[0; 0x1000], |spec| {
                spec.mode = Some(Mode::Reset);
                change(spec);
            })
        };
        let expected = "boot.flat.entry: in \"reset\" mode the processor starts at its reset vector; remove the \
                        setting";
        assert_eq!(reset(|spec| spec.entry = Some(0xf_fff0)), expected);
        let expected =
            "boot.flat.stack: in \"reset\" mode the program sets its own stack; remove the setting";
        assert_eq!(reset(|spec| spec.stack = Some(0x1000)), expected);
    }
}
