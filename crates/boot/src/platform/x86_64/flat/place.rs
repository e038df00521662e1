//! Places a flat image, its entry and its stack.

use std::ops::Range;

use vmm_arch::flat::{Mode, Table};
use vmm_arch::layout::{self, HIGH_MEMORY, MMIO_GAP};
use vmm_memory::PAGE_LEN;

use crate::elf_format::Segment;
use crate::platform::x86_64::flat::elf::FlatElf;
use crate::platform::x86_64::flat::error::FlatPlanError;
use crate::platform::x86_64::flat::image::FlatImage;
use crate::platform::x86_64::flat::multiboot::Body;
use crate::platform::x86_64::flat::spec::FlatSpec;

/// The placed image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlacedImage {
    /// The segments, in ascending order; never empty, never overlapping, all in RAM below the MMIO gap.
    pub(crate) segments: Vec<Segment>,
    /// What is added to the addresses of a position-independent executable, modulo 2^64.
    pub(crate) bias: u64,
    /// Whether the load address can be configured.
    pub(crate) movable: bool,
    /// For a reset image that was rounded down to a page: the address at which it would start to end at 1
    /// MiB.
    pub(crate) rounded_from: Option<u64>,
    /// The image's own entry.
    entry: OwnEntry,
}

impl PlacedImage {
    /// The addresses filled from the file.
    pub(crate) fn filled(&self) -> Vec<Range<u64>> {
        let filled = self.segments.iter().map(Segment::file_backed);
        filled.filter(|range| !range.is_empty()).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnEntry {
    /// A physical address, possibly outside the image.
    At(u64),
    /// A virtual address outside the image.
    Nowhere(u64),
}

/// Address of the first instruction after reset.
const RESET_VECTOR: u64 = 0xffff_fff0;
/// The reset vector's address in the image, at the end of the first MiB.
pub(crate) const RESET_VECTOR_IN_IMAGE: u64 = layout::RESET_IMAGE_END - 0x10;
/// Minimum length of a stack whose user doesn't say more: an estimate for a few calls and an interrupt.
const LEAST_STACK_LEN: u64 = 0x100;
/// Exclusive limit of addresses that SP can reach with SS 0.
const REAL_STACK_END: u64 = 0x1_0000;

/// The requested mode, if the image can be started in it.
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

/// Places the image in the RAM below the MMIO gap, which ends at `ram_end`.
pub(crate) fn image(spec: &FlatSpec<'_>, mode: Mode, ram_end: u64) -> Result<PlacedImage, FlatPlanError> {
    if let Some(address) = spec.load_address {
        check_movable(spec.image)?;
        check_load_address(address, ram_end)?;
    }
    let placed = match spec.image {
        FlatImage::Raw { len } => raw(*len, spec.load_address, mode, ram_end)?,
        FlatImage::Elf(image) => elf(image, spec.load_address, ram_end)?,
        FlatImage::Multiboot(image) => match image.body() {
            Body::Elf(image) => elf(image, spec.load_address, ram_end)?,
            &Body::Addresses { segment, entry } => PlacedImage {
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

/// Address of the first instruction.
pub(crate) fn entry(spec: &FlatSpec<'_>, mode: Mode, placed: &PlacedImage) -> Result<u64, FlatPlanError> {
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

/// The initial stack pointer, just above the stack; 0 in reset mode, where there is no stack.
pub(crate) fn stack(
    spec: &FlatSpec<'_>,
    mode: Mode,
    placed: &PlacedImage,
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

/// The memory reserved for a stack below `stack`: the whole default stack, or a little for any other, whose
/// user knows how much it needs.
pub(crate) fn stack_room(stack: u64) -> Range<u64> {
    let len = if stack == layout::BOOT_STACK { layout::BOOT_STACK_LEN } else { LEAST_STACK_LEN };
    stack.saturating_sub(len)..stack
}

/// Addresses of a table.
pub(crate) fn range(table: &Table) -> Range<u64> {
    table.gpa..table.gpa + table.bytes.len() as u64
}

/// Refuses `tables` for a multiboot kernel that are outside RAM or overlap the image.
pub(crate) fn check_handed(
    placed: &PlacedImage,
    tables: &[Table],
    ram_end: u64,
) -> Result<(), FlatPlanError> {
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

/// The default stack: below [`layout::BOOT_STACK`], or below the end of RAM if that is lower. In the latter
/// case the image may fill all of RAM, and the overlap isn't checked.
fn default_stack(placed: &PlacedImage, ram_end: u64) -> Result<u64, FlatPlanError> {
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

fn raw(len: u64, load_address: Option<u64>, mode: Mode, ram_end: u64) -> Result<PlacedImage, FlatPlanError> {
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
    // Linkers end a file with its last instruction, the jump at the reset vector, and omit the rest of the
    // page. Such images are page-aligned: one of 0xfff5 bytes belongs at 0xf0000.
    let rounds = mode == Mode::Reset && load_address.is_none() && !unrounded.is_multiple_of(PAGE_LEN);
    let start = if rounds { unrounded & !(PAGE_LEN - 1) } else { unrounded };
    let segment = Segment { offset: 0, paddr: start, file_len: len, mem_len: len };
    Ok(PlacedImage {
        segments: vec![segment],
        bias: 0,
        movable: true,
        rounded_from: rounds.then_some(unrounded),
        entry: OwnEntry::At(start),
    })
}

fn elf(elf: &FlatElf, load_address: Option<u64>, ram_end: u64) -> Result<PlacedImage, FlatPlanError> {
    let segments = elf.segments();
    let movable = elf.is_position_independent();
    let mut bias = 0;
    if movable {
        let start = load_address.unwrap_or(HIGH_MEMORY);
        if !start.is_multiple_of(PAGE_LEN) {
            return Err(FlatPlanError::LoadAddressUnaligned { address: start });
        }
        // Moves the page of the first segment to the load address.
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
    Ok(PlacedImage { segments: segments.collect(), bias, movable, rounded_from: None, entry })
}

/// Refuses a load address for an image with fixed addresses.
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

/// Checks that the processor finds the image at its reset vector, through the alias.
fn check_reset(image: &Range<u64>, ram_end: u64) -> Result<(), FlatPlanError> {
    if !image.contains(&RESET_VECTOR_IN_IMAGE) {
        return Err(FlatPlanError::ResetVector { image: image.clone() });
    }
    // All memory visible through the alias must be RAM, even if the image is shorter.
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
