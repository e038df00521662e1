//! Decides where a flat image goes and where it starts.

use std::ops::Range;

use vmm_arch::flat::{Mode, Table};
use vmm_arch::layout::{self, HIGH_MEMORY, MMIO_GAP};
use vmm_memory::PAGE_LEN;

use crate::elf_format::Segment;
use crate::flat::elf::FlatElf;
use crate::flat::error::FlatPlanError;
use crate::flat::image::FlatImage;
use crate::flat::multiboot::Body;
use crate::flat::spec::FlatSpec;

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
mod tests;
