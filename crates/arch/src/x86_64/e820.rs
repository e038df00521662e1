//! The memory map that firmware reports to the kernel (ACPI 6.5 §15, "System Address Map Interfaces").

use std::ops::Range;

use super::layout;

/// Type of a range. The values are ACPI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// Usable RAM.
    Ram = 1,
    /// Reserved: the guest must not allocate it.
    Reserved = 2,
}

/// A range of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// First guest-physical address.
    pub addr: u64,
    /// Length in bytes, never 0.
    pub len: u64,
    /// Type of the range.
    pub kind: E820Kind,
}

impl E820Entry {
    fn new(range: Range<u64>, kind: E820Kind) -> Self {
        Self { addr: range.start, len: range.end - range.start, kind }
    }
}

/// The memory map of a machine with RAM at `ram`, as returned by [`layout::ram_ranges`].
///
/// Entries are in ascending order and disjoint. The EBDA and the BIOS area are reserved. The 384 KiB above
/// 640 KiB are never RAM, although memory backs them: kernels expect video memory and ROMs there. Addresses
/// without memory aren't in the map: a machine with less than 640 KiB only has conventional memory.
pub fn map(ram: &[Range<u64>]) -> Vec<E820Entry> {
    let low_end = ram.first().map_or(0, |r| r.end);
    let mut entries = vec![E820Entry::new(0..low_end.min(layout::EBDA), E820Kind::Ram)];
    for reserved in [layout::EBDA..layout::VIDEO, layout::BIOS..layout::HIGH_MEMORY] {
        if low_end > reserved.start {
            entries.push(E820Entry::new(reserved.start..low_end.min(reserved.end), E820Kind::Reserved));
        }
    }
    for range in ram {
        let above = range.start.max(layout::HIGH_MEMORY)..range.end;
        if !above.is_empty() {
            entries.push(E820Entry::new(above, E820Kind::Ram));
        }
    }
    entries.retain(|e| e.len > 0);
    entries
}

/// `map` with another reserved range, which overlaps none of its entries.
pub fn with_reserved(mut map: Vec<E820Entry>, range: Range<u64>) -> Vec<E820Entry> {
    let at = map.partition_point(|entry| entry.addr < range.start);
    map.insert(at, E820Entry::new(range, E820Kind::Reserved));
    map
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn map_of_256_mib_has_the_640_kib_hole() {
        let expected = [
            E820Entry { addr: 0, len: 0x9_fc00, kind: E820Kind::Ram },
            E820Entry { addr: 0x9_fc00, len: 0x400, kind: E820Kind::Reserved },
            E820Entry { addr: 0xf_0000, len: 0x1_0000, kind: E820Kind::Reserved },
            E820Entry { addr: 0x10_0000, len: 0xff0_0000, kind: E820Kind::Ram },
        ];
        assert_eq!(map(&layout::ram_ranges(256 << 20)), expected);
    }

    #[test]
    fn map_of_5_gib_goes_on_above_4_gib() {
        let ram: Vec<_> = map(&layout::ram_ranges(5 << 30))
            .into_iter()
            .filter(|e| e.kind == E820Kind::Ram)
            .map(|e| e.addr..e.addr + e.len)
            .collect();
        assert_eq!(ram, [0..0x9_fc00, 0x10_0000..0xc000_0000, 0x1_0000_0000..0x1_8000_0000]);
    }

    #[test]
    fn reserved_range_of_the_gap_stays_in_ascending_order() {
        let map = with_reserved(map(&layout::ram_ranges(5 << 30)), 0xc000_0000..0xc010_0000);
        let last: Vec<_> = map.iter().rev().take(2).map(|e| (e.addr, e.len, e.kind)).collect();
        let reserved = (0xc000_0000, 0x10_0000, E820Kind::Reserved);
        assert_eq!(last, [(0x1_0000_0000, 2 << 30, E820Kind::Ram), reserved]);
    }

    #[test]
    fn map_of_4_kib_is_one_entry() {
        assert_eq!(map(&layout::ram_ranges(4096)), [E820Entry { addr: 0, len: 4096, kind: E820Kind::Ram }]);
    }

    #[test]
    fn map_that_ends_inside_a_reserved_area_ends_there() {
        let reserved = |addr, len| E820Entry { addr, len, kind: E820Kind::Reserved };
        // 0xf2000 bytes: all of the EBDA, and two pages of the BIOS area.
        let expected = [
            E820Entry { addr: 0, len: 0x9_fc00, kind: E820Kind::Ram },
            reserved(0x9_fc00, 0x400),
            reserved(0xf_0000, 0x2000),
        ];
        assert_eq!(map(&layout::ram_ranges(0xf_2000)), expected);
    }

    proptest! {
        #[test]
        fn map_of_a_small_machine_lies_in_its_ram(pages in 1u64..256) {
            let entries = map(&layout::ram_ranges(pages * 4096));
            prop_assert!(entries.iter().all(|e| e.len > 0 && e.addr + e.len <= pages * 4096));
            prop_assert!(entries.windows(2).all(|w| w[0].addr + w[0].len <= w[1].addr));
        }

        #[test]
        fn map_is_sorted_disjoint_and_no_larger_than_ram(pages in 256u64..(1 << 24)) {
            let ranges = layout::ram_ranges(pages * 4096);
            let entries = map(&ranges);
            prop_assert!(entries.windows(2).all(|w| w[0].addr + w[0].len <= w[1].addr));
            let ram: u64 = entries.iter().filter(|e| e.kind == E820Kind::Ram).map(|e| e.len).sum();
            // Lost to the EBDA, video memory and the BIOS area: 1 MiB - 0x9fc00.
            prop_assert_eq!(ram, pages * 4096 - (0x10_0000 - 0x9_fc00));
        }
    }
}
