//! Plans the start of a flat image.

use std::fmt;
use std::ops::Range;

use vmm_arch::e820::{self, E820Entry};
use vmm_arch::flat::{Mode, Start, Table, Tables};
use vmm_arch::layout;

use crate::elf_format::Segment;
use crate::placement::Placement;
use crate::platform::x86_64::flat::bios_data;
use crate::platform::x86_64::flat::error::FlatPlanError;
use crate::platform::x86_64::flat::handover::{self, Handover};
use crate::platform::x86_64::flat::handover_room::MAX_MAP_ENTRIES;
use crate::platform::x86_64::flat::image::FlatImage;
use crate::platform::x86_64::flat::place::{self, PlacedImage};
use crate::platform::x86_64::flat::spec::{FlatSpec, TableSource};
use crate::platform::x86_64::flat::tables;
use crate::platform::x86_64::memory_map::write_memory;

/// All addresses, and the initial state of the guest. Created by [`FlatPlan::new`], printed by `--check`,
/// executed by [`FlatPlan::load`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatPlan {
    image: FlatImage,
    start: Start,
    placed: PlacedImage,
    handover: Option<Handover>,
    /// Fields of the BIOS data area that don't overlap the image.
    bios_data: Vec<Table>,
    e820: Vec<E820Entry>,
}

/// RAM that is also visible, read-only, at another address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The guest-physical addresses of the RAM, whole pages.
    pub source: Range<u64>,
    /// Guest-physical address of the alias.
    pub gpa: u64,
}

impl FlatPlan {
    /// Plans the start described by `spec`.
    ///
    /// The image is placed by its headers or by `spec`, in RAM below the 32-bit MMIO gap, which every mode
    /// can address. A multiboot kernel's modules follow it, page-aligned. Everything else has the addresses
    /// of [`layout`]; tables of the mode move to the first free place if theirs is taken.
    ///
    /// # Errors
    /// The spec is invalid for this image or mode, or something doesn't fit.
    pub fn new(spec: &FlatSpec<'_>) -> Result<Self, FlatPlanError> {
        let mode = place::mode(spec)?;
        check_unused(spec)?;
        let ram_end = spec.ram.first().filter(|low| low.start == 0).map_or(0, |low| low.end);
        let placed = place::image(spec, mode, ram_end)?;
        let entry = place::entry(spec, mode, &placed)?;
        let e820 = e820::map(spec.ram);
        let handover = handover(spec, &placed, &e820, ram_end)?;
        let handed = handover.as_ref().map_or(Vec::new(), |handover| handover.tables(&e820));
        place::check_handed(&placed, &handed, ram_end)?;
        let stack = place::stack(spec, mode, &placed, ram_end)?;
        let tables = match spec.tables {
            TableSource::Plan => {
                let mut taken: Vec<_> = placed.segments.iter().map(Segment::memory).collect();
                taken.extend(handed.iter().map(place::range));
                taken.extend(handover.iter().flat_map(Handover::modules).map(|module| module.range.clone()));
                taken.push(place::stack_room(stack));
                tables::place(mode, &taken, ram_end)?
            }
            TableSource::Image { page_tables } => tables::own(mode, page_tables, &placed.filled())?,
        };
        let (eax, ebx) = match handover {
            Some(_) => (handover::MAGIC, layout::MULTIBOOT_INFO as u32),
            None => (0, 0),
        };
        let start = Start { mode, entry, stack, eax, ebx, tables };
        let segments: Vec<_> = placed.segments.iter().map(Segment::memory).collect();
        let bios_data = bios_data::tables(mode, &segments, ram_end);
        Ok(Self { image: spec.image.clone(), start, placed, handover, bios_data, e820 })
    }

    /// The image.
    pub fn image(&self) -> &FlatImage {
        &self.image
    }

    /// Mode and address of the first instruction. In reset mode the entry is the reset vector, 0xffff_fff0.
    pub fn start(&self) -> Start {
        self.start
    }

    /// The guest's memory map. A multiboot kernel is passed it; other images don't get it.
    pub fn e820(&self) -> &[E820Entry] {
        &self.e820
    }

    /// The alias needed in reset mode: the processor fetches its first instruction at 0xffff_fff0, which the
    /// image has at 0xf_fff0.
    pub fn alias(&self) -> Option<Alias> {
        let source = layout::BIOS..layout::RESET_IMAGE_END;
        (self.start.mode == Mode::Reset).then_some(Alias { source, gpa: layout::RESET_ALIAS })
    }

    /// Everything that [`FlatPlan::load`] may write, in ascending order of address.
    pub fn placements(&self) -> Vec<Placement> {
        let mut all: Vec<_> =
            self.tables().iter().map(|t| Placement { what: t.what, range: place::range(t) }).collect();
        all.extend(self.segments().iter().map(|s| Placement { what: "image", range: s.memory() }));
        all.extend(self.modules().map(|range| Placement { what: "module", range }));
        all.sort_by_key(|placement| placement.range.start);
        all
    }

    /// The image's segments at their final addresses.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.placed.segments
    }

    /// What is added to its virtual addresses.
    pub(crate) fn bias(&self) -> u64 {
        self.placed.bias
    }

    /// Addresses of the modules.
    pub(crate) fn modules(&self) -> impl ExactSizeIterator<Item = Range<u64>> {
        let modules = self.handover.as_ref().map_or(&[][..], Handover::modules);
        modules.iter().map(|module| module.range.clone())
    }

    /// Everything that is written, except files.
    pub(crate) fn tables(&self) -> Vec<Table> {
        let mut tables = self.start.mode.tables_at(self.start.tables);
        tables.extend(self.handover.iter().flat_map(|handover| handover.tables(&self.e820)));
        tables.extend(self.bios_data.iter().cloned());
        tables
    }
}

impl fmt::Display for FlatPlan {
    /// Multi-line output for `--check`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "image: {}", self.image)?;
        if let (Some(unrounded), Some(segment)) = (self.placed.rounded_from, self.segments().first()) {
            let start = segment.paddr;
            writeln!(
                f,
                "load address: {start:#x}, the page of {unrounded:#x}, from where it would end at 1 MiB"
            )?;
        }
        writeln!(f, "entry: {} mode at {:#x}", self.start.mode.name(), self.start.entry)?;
        if let Some(Alias { source, gpa }) = self.alias() {
            writeln!(f, "alias: {:#x}..{:#x} once more at {gpa:#x}, read-only", source.start, source.end)?;
        } else {
            writeln!(f, "stack: below {:#x}", self.start.stack)?;
        }
        match self.start.tables {
            Tables::Own { page_tables } if self.start.mode.has_paging() => {
                writeln!(f, "tables: the image's own, page tables at {page_tables:#x}")?;
            }
            Tables::Own { .. } => writeln!(f, "tables: the image's own")?,
            Tables::Written { .. } => {}
        }
        if let Some(handover) = &self.handover {
            writeln!(f, "command line: {:?}", handover.cmdline())?;
        }
        write_memory(f, &self.e820, &self.placements())
    }
}

/// Refuses settings that only apply to multiboot images.
fn check_unused(spec: &FlatSpec<'_>) -> Result<(), FlatPlanError> {
    if matches!(spec.image, FlatImage::Multiboot(_)) {
        return Ok(());
    }
    match spec {
        FlatSpec { cmdline: Some(_), .. } => Err(FlatPlanError::CmdlineUnused),
        FlatSpec { modules: [_, ..], .. } => Err(FlatPlanError::ModulesUnused),
        _ => Ok(()),
    }
}

fn handover(
    spec: &FlatSpec<'_>,
    placed: &PlacedImage,
    e820: &[E820Entry],
    ram_end: u64,
) -> Result<Option<Handover>, FlatPlanError> {
    if !matches!(spec.image, FlatImage::Multiboot(_)) {
        return Ok(None);
    }
    if e820.len() > MAX_MAP_ENTRIES {
        return Err(FlatPlanError::MemoryMap { count: e820.len() });
    }
    let image_end = placed.segments.last().map_or(0, |segment| segment.memory().end);
    Handover::new(spec.cmdline.unwrap_or_default(), spec.modules, image_end, ram_end).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::x86_64::flat::spec::ModuleSpec;
    use crate::platform::x86_64::flat::testing::{elf64, inspected, load, multiboot_elf, pie64, rela};

    /// A plan for `file` on 4 MiB of RAM, with `change` applied to the spec.
    fn plan(file: &[u8], change: impl FnOnce(&mut FlatSpec<'_>)) -> Result<FlatPlan, FlatPlanError> {
        let (image, ram) = (inspected(file), layout::ram_ranges(4 << 20));
        let mut spec = FlatSpec::new(&image, &ram);
        change(&mut spec);
        FlatPlan::new(&spec)
    }

    fn complaint(file: &[u8], change: impl FnOnce(&mut FlatSpec<'_>)) -> String {
        plan(file, change).unwrap_err().to_string()
    }

    fn start(mode: Mode, entry: u64) -> Start {
        Start::new(mode, entry, layout::BOOT_STACK)
    }

    #[test]
    fn plan_of_a_raw_image_starts_in_real_mode_at_0() {
        let plan = plan(b"\xf4", |_| {}).unwrap();
        assert_eq!(plan.start(), start(Mode::Real, 0));
        assert_eq!(plan.placements(), [Placement { what: "image", range: 0..1 }]);
    }

    #[test]
    fn plan_of_a_raw_image_in_32_or_64_bit_starts_at_1_mib() {
        let plan = |mode| plan(b"\xf4", |spec| spec.mode = Some(mode)).unwrap().start();
        assert_eq!(plan(Mode::Protected), start(Mode::Protected, 0x10_0000));
        assert_eq!(plan(Mode::Paged), start(Mode::Paged, 0x10_0000));
        assert_eq!(plan(Mode::Long), start(Mode::Long, 0x10_0000));
    }

    #[test]
    fn plan_with_an_entry_and_a_stack_takes_them() {
        let start = plan(&[0xf4; 32], |spec| (spec.entry, spec.stack) = (Some(31), Some(0x1_0000))).unwrap();
        assert_eq!((start.start().entry, start.start().stack), (31, 0x1_0000));
    }

    #[test]
    fn plan_of_a_raw_image_elsewhere_starts_there() {
        let plan = plan(b"\xf4", |spec| spec.load_address = Some(0x7c00)).unwrap();
        assert_eq!(plan.start().entry, 0x7c00);
    }

    #[test]
    fn plan_of_an_elf_starts_at_its_entry() {
        let plan = plan(&elf64(2, 0x20_0004, &[load(0x20_0000, 16, 4096)]), |_| {}).unwrap();
        assert_eq!(plan.start(), start(Mode::Long, 0x20_0004));
    }

    #[test]
    fn plan_of_a_position_independent_executable_moves_everything() {
        let file = pie64(&[(7, 0x100), (8, 24)], &rela(0x80, 8, 0x10));
        let plan = plan(&file, |spec| spec.load_address = Some(0x30_0000)).unwrap();
        assert_eq!((plan.start().entry, plan.bias()), (0x30_0000, 0x30_0000));
        assert_eq!(plan.segments()[0].memory(), 0x30_0000..0x30_0200);
    }

    #[test]
    fn plan_of_a_position_independent_executable_linked_high_moves_it_down() {
        // Linked at 0x201010: its page, 0x201000, moves to 1 MiB.
        let plan = plan(&elf64(3, 0x20_1014, &[load(0x20_1010, 16, 16)]), |_| {}).unwrap();
        assert_eq!((plan.start().entry, plan.segments()[0].paddr), (0x10_0014, 0x10_0010));
    }

    #[test]
    fn plan_of_a_multiboot_image_passes_the_magic_and_the_information() {
        let plan = plan(&multiboot_elf(3), |_| {}).unwrap();
        let Start { mode, entry, eax, ebx, .. } = plan.start();
        assert_eq!((mode, entry, eax, ebx), (Mode::Protected, 0x10_000c, 0x2bad_b002, 0x5000));
    }

    #[test]
    fn plan_of_a_reset_image_ends_at_1_mib_and_has_an_alias() {
        let plan = plan(&[0xf4; 0x1_0000], |spec| spec.mode = Some(Mode::Reset)).unwrap();
        assert_eq!(plan.placements(), [Placement { what: "image", range: 0xf_0000..0x10_0000 }]);
        assert_eq!(plan.alias(), Some(Alias { source: 0xf_0000..0x10_0000, gpa: 0xffff_0000 }));
        assert_eq!((plan.start().entry, plan.start().stack), (0xffff_fff0, 0));
    }

    /// As gcc and ld make a program whose last instruction is the jump at 0xfff0.
    #[test]
    fn plan_of_a_reset_image_that_ends_with_its_jump_starts_on_a_page() {
        let plan = plan(&[0xf4; 65_525], |spec| spec.mode = Some(Mode::Reset)).unwrap();
        assert_eq!(plan.placements(), [Placement { what: "image", range: 0xf_0000..0xf_fff5 }]);
        let line = "\nload address: 0xf0000, the page of 0xf000b, from where it would end at 1 MiB\n";
        assert!(plan.to_string().contains(line), "{plan}");
    }

    #[test]
    fn plan_of_a_reset_image_with_a_load_address_takes_it_as_it_is() {
        let plan = plan(&[0xf4; 65_525], |spec| {
            (spec.mode, spec.load_address) = (Some(Mode::Reset), Some(0xf_000b))
        });
        assert_eq!(plan.unwrap().segments()[0].memory(), 0xf_000b..0x10_0000);
    }

    #[test]
    fn plan_of_an_image_over_the_bios_data_leaves_that_out() {
        let plan = plan(&[0xf4; 2], |spec| {
            (spec.mode, spec.load_address) = (Some(Mode::Protected), Some(0x413));
        });
        let placements = plan.unwrap().placements();
        let names: Vec<_> = placements.iter().map(|placement| placement.what).collect();
        let expected = ["EBDA's segment", "image", "descriptor tables", "interrupt table", "EBDA's length"];
        assert_eq!(names, expected);
    }

    #[test]
    fn plan_without_reset_has_no_alias() {
        assert_eq!(plan(b"\xf4", |_| {}).unwrap().alias(), None);
    }

    #[test]
    fn plan_with_a_command_line_for_no_multiboot_image_is_refused() {
        let expected = "boot.cmdline: only a multiboot image takes a command line; remove the setting";
        assert_eq!(complaint(b"\xf4", |spec| spec.cmdline = Some("quiet")), expected);
    }

    #[test]
    fn plan_with_modules_for_no_multiboot_image_is_refused() {
        let expected = "boot.flat.modules: only a multiboot image takes modules; remove the setting";
        let modules = &[ModuleSpec { len: 1, cmdline: "" }];
        assert_eq!(complaint(b"\xf4", |spec| spec.modules = modules), expected);
    }

    #[test]
    fn plan_with_a_command_line_that_is_none_is_refused() {
        let expected = "boot.cmdline: command line: NUL at byte 1";
        assert_eq!(complaint(&multiboot_elf(0), |spec| spec.cmdline = Some("a\0")), expected);
    }

    #[test]
    fn plan_memory_map_of_too_many_pieces_is_refused() {
        let image = inspected(&multiboot_elf(0));
        let ram: Vec<_> = (0..73).map(|n| n * (16 << 20)..n * (16 << 20) + (8 << 20)).collect();
        let error = FlatPlan::new(&FlatSpec::new(&image, &ram)).unwrap_err();
        assert_eq!(error.to_string(), "a memory map of 76 entries; at most 74 fit");
    }

    #[test]
    fn plan_display_of_a_raw_image_is_golden() {
        let expected = "\
image: raw, 3 bytes
entry: long mode at 0x100000
stack: below 0x8ff0
memory map:
  0x000000000..0x00009fc00 RAM
  0x00009fc00..0x0000a0000 reserved
  0x0000f0000..0x000100000 reserved
  0x000100000..0x000400000 RAM
placements:
  0x00000040e..0x000000410 EBDA's segment
  0x000000413..0x000000415 conventional memory
  0x000000500..0x000000528 descriptor tables
  0x000000530..0x000000538 interrupt table
  0x000009000..0x00000f000 page tables
  0x00009fc00..0x00009fc01 EBDA's length
  0x000100000..0x000100003 image
";
        let shown = plan(b"\xb0\x2a\xf4", |spec| spec.mode = Some(Mode::Long)).unwrap().to_string();
        assert_eq!(shown, expected);
    }

    #[test]
    fn plan_display_of_a_reset_image_shows_the_alias() {
        let shown = plan(&[0xf4; 0x1_0000], |spec| spec.mode = Some(Mode::Reset)).unwrap().to_string();
        let expected = "\
image: raw, 65536 bytes
entry: reset mode at 0xfffffff0
alias: 0xf0000..0x100000 once more at 0xffff0000, read-only
memory map:
";
        assert_eq!(&shown[..expected.len()], expected);
    }

    #[test]
    fn plan_display_of_a_multiboot_image_is_golden() {
        let expected = "\
image: multiboot header at 0x54, ELF32, 1 segments, entry 0x10000c
entry: protected mode at 0x10000c
stack: below 0x8ff0
command line: \"kernel -v\"
memory map:
  0x000000000..0x00009fc00 RAM
  0x00009fc00..0x0000a0000 reserved
  0x0000f0000..0x000100000 reserved
  0x000100000..0x000400000 RAM
placements:
  0x00000040e..0x000000410 EBDA's segment
  0x000000413..0x000000415 conventional memory
  0x000000500..0x000000528 descriptor tables
  0x000000530..0x000000538 interrupt table
  0x000005000..0x000005074 multiboot information
  0x000005080..0x000005084 boot loader name
  0x000005100..0x000005160 memory map
  0x000005800..0x000005810 module list
  0x000006000..0x000006002 module strings
  0x000020000..0x00002000a command line
  0x00009fc00..0x00009fc01 EBDA's length
  0x000100000..0x000101000 image
  0x000101000..0x000102388 module
";
        let modules = &[ModuleSpec { len: 5000, cmdline: "m" }];
        let shown = plan(&multiboot_elf(3), |spec| {
            (spec.cmdline, spec.modules) = (Some("kernel -v"), modules);
        });
        assert_eq!(shown.unwrap().to_string(), expected);
    }
}
