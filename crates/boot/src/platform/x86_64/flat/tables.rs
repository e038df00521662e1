//! Places the tables of a mode: where Linux's are, so that there is one map of low memory, or elsewhere if the
//! image occupies that.

use std::ops::Range;

use vmm_arch::flat::{Mode, Tables};
use vmm_arch::layout;
use vmm_memory::PAGE_LEN;

use crate::platform::x86_64::flat::error::FlatPlanError;
use crate::platform::x86_64::flat::place::overlap;

/// Lowest address for moved tables: below are the real-mode interrupt vector table and the BIOS data area,
/// which programs may overwrite.
const FLOOR: u64 = layout::GDT;
/// Alignment of descriptor tables. 8 would suffice, but multiples of 16 are easier to read.
const DESCRIPTOR_ALIGNMENT: u64 = 16;

/// Places the tables of `mode` in RAM that ends at `ram_end`, without overlapping `taken`.
pub(crate) fn place(mode: Mode, taken: &[Range<u64>], ram_end: u64) -> Result<Tables, FlatPlanError> {
    let mut space = Space { taken: taken.to_vec(), ram_end };
    let (mut gdt, mut idt, mut page_tables) = (layout::GDT, layout::IDT, layout::PML4);
    // In the order of the mode's tables.
    let places = [&mut gdt, &mut idt, &mut page_tables];
    let alignments = [DESCRIPTOR_ALIGNMENT, DESCRIPTOR_ALIGNMENT, PAGE_LEN];
    for ((table, place), alignment) in mode.tables().iter().zip(places).zip(alignments) {
        let len = table.bytes.len() as u64;
        *place = space
            .take(table.gpa, len, alignment)
            .ok_or(FlatPlanError::TablesWithoutRoom { what: table.what, len })?;
    }
    Ok(Tables::Written { gdt, idt, page_tables })
}

/// The image's own page tables, if the mode needs any. `filled` are the addresses filled from the file.
pub(crate) fn own(
    mode: Mode,
    page_tables: Option<u64>,
    filled: &[Range<u64>],
) -> Result<Tables, FlatPlanError> {
    let address = match (mode.has_paging(), page_tables) {
        (false, None) => return Ok(Tables::Own { page_tables: 0 }),
        (false, Some(_)) => return Err(FlatPlanError::PageTablesUnused { mode }),
        (true, None) => return Err(FlatPlanError::PageTablesMissing { mode }),
        (true, Some(address)) => address,
    };
    if !address.is_multiple_of(PAGE_LEN) {
        return Err(FlatPlanError::PageTablesUnaligned { address });
    }
    if !filled.iter().any(|range| range.contains(&address)) {
        return Err(FlatPlanError::PageTablesOutside { address, image: filled.to_vec() });
    }
    Ok(Tables::Own { page_tables: address })
}

/// The RAM that tables may use, without what is taken.
struct Space {
    taken: Vec<Range<u64>>,
    ram_end: u64,
}

impl Space {
    /// Takes `len` bytes at `preferred`, or at the first free multiple of `alignment`.
    fn take(&mut self, preferred: u64, len: u64, alignment: u64) -> Option<u64> {
        // The first free place is at the start of an area, or just after something that is taken.
        let mut starts: Vec<u64> = self.taken.iter().map(|range| range.end).collect();
        starts.extend([FLOOR, layout::HIGH_MEMORY]);
        starts.sort_unstable();
        let aligned = starts.into_iter().map(|start| start.next_multiple_of(alignment));
        let start = [preferred].into_iter().chain(aligned).find(|start| self.is_free(*start, len))?;
        self.taken.push(start..start + len);
        Some(start)
    }

    fn is_free(&self, start: u64, len: u64) -> bool {
        // No overflow: starts follow ranges in RAM below the MMIO gap.
        let range = start..start + len;
        let low = FLOOR..self.ram_end.min(layout::EBDA);
        let high = layout::HIGH_MEMORY..self.ram_end;
        let inside = |area: Range<u64>| area.start <= range.start && range.end <= area.end;
        (inside(low) || inside(high)) && !self.taken.iter().any(|taken| overlap(taken, &range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(gdt: u64, idt: u64, page_tables: u64) -> Tables {
        Tables::Written { gdt, idt, page_tables }
    }

    #[test]
    fn tables_beside_a_small_image_keep_their_places() {
        assert_eq!(place(Mode::Long, &[0..0x500, 0x10_0000..0x10_0001], 4 << 20), Ok(Tables::LOW));
    }

    #[test]
    fn tables_under_an_image_of_8_kib_follow_it() {
        let image = 0..0x2000;
        assert_eq!(place(Mode::Long, &[image], 2 << 20), Ok(written(0x2000, 0x2030, 0x9000)));
    }

    #[test]
    fn tables_that_are_covered_by_one_byte_move_alone() {
        assert_eq!(place(Mode::Long, &[0xefff..0xf001], 2 << 20), Ok(written(0x500, 0x530, 0x1000)));
    }

    /// The six pages fit neither below the image nor between the image and the EBDA.
    #[test]
    fn tables_without_room_in_conventional_memory_go_to_high_memory() {
        let image = 0x6000..0x9_b000;
        assert_eq!(place(Mode::Long, &[image], 2 << 20), Ok(written(0x500, 0x530, 0x10_0000)));
    }

    #[test]
    fn tables_never_lie_on_each_other() {
        // The GDT moves after the image, where it covers the usual place of the IDT.
        assert_eq!(place(Mode::Protected, &[0..0x510], 4096), Ok(written(0x510, 0x540, 0x9000)));
    }

    #[test]
    fn tables_in_a_machine_of_7_pages_leave_out_the_first() {
        assert_eq!(place(Mode::Long, &[0..0x41], 0x7000), Ok(written(0x500, 0x530, 0x1000)));
    }

    #[test]
    fn tables_in_too_little_memory_are_refused() {
        let expected = "no room for the page tables, 24576 bytes, beside the image and its stack; give the guest more \
                        memory, or let the image bring tables (\"tables\": false)";
        assert_eq!(place(Mode::Long, &[0..0x41], 0x6000).unwrap_err().to_string(), expected);
    }

    #[test]
    fn tables_of_a_mode_without_any_are_never_in_the_way() {
        assert_eq!(place(Mode::Real, &[0..0x1000], 0x1000), Ok(Tables::LOW));
    }

    fn own_complaint(mode: Mode, page_tables: Option<u64>) -> String {
        own(mode, page_tables, &[0..0x5000]).unwrap_err().to_string()
    }

    #[test]
    fn own_tables_are_named_in_a_mode_with_paging_only() {
        assert_eq!(own(Mode::Long, Some(0x2000), &[0..0x2001]), Ok(Tables::Own { page_tables: 0x2000 }));
        assert_eq!(own(Mode::Protected, None, &[]), Ok(Tables::Own { page_tables: 0 }));
        let expected = "boot.flat.page_tables: missing, and in \"long\" mode the image brings page tables if \"tables\" is \
                        false; say where they lie, or remove \"tables\"";
        assert_eq!(own_complaint(Mode::Long, None), expected);
        let expected = "boot.flat.page_tables: \"protected\" mode has no paging; remove the setting";
        assert_eq!(own_complaint(Mode::Protected, Some(0x2000)), expected);
    }

    #[test]
    fn own_tables_inside_a_page_are_refused() {
        let expected = "boot.flat.page_tables 0x2008: page tables start at a multiple of 0x1000";
        assert_eq!(own_complaint(Mode::Paged, Some(0x2008)), expected);
    }

    #[test]
    fn own_tables_outside_the_image_are_refused() {
        let expected = "boot.flat.page_tables 0x5000 lies outside the image's bytes at 0x0..0x5000, and so there are no page \
                        tables; name their address in the image, or remove \"tables\"";
        assert_eq!(own_complaint(Mode::Long, Some(0x5000)), expected);
    }
}
