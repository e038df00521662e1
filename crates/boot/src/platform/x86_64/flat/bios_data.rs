//! Fields of the BIOS data area that tell programs where conventional memory ends.
//!
//! There is no BIOS. But Xen's multiboot entry, for one, reads the EBDA and the size of memory there before
//! using what the boot loader passes, and loops forever on zeros.

use std::ops::Range;

use vmm_arch::flat::{Mode, Table};
use vmm_arch::layout;

/// Addresses in the BIOS data area of the EBDA's segment, and of the size of conventional memory in KiB (the
/// IBM PC's BIOS data area, 40:0E and 40:13).
const EBDA_SEGMENT: u64 = 0x40e;
const MEMORY_KIB: u64 = 0x413;
/// First byte of the EBDA: its length in KiB.
const EBDA_KIB: u8 = ((layout::VIDEO - layout::EBDA) >> 10) as u8;

/// The fields for an image of `mode`. A field that would overlap one of the `segments`, or that is beyond the
/// end of RAM, is left out. If RAM ends before the EBDA, there is no EBDA, and the size is that of RAM. In
/// real and reset mode there are no fields: the program has that memory to itself, as after power on.
pub(crate) fn tables(mode: Mode, segments: &[Range<u64>], ram_end: u64) -> Vec<Table> {
    if matches!(mode, Mode::Real | Mode::Reset) {
        return Vec::new();
    }
    let word = |value: u64| (value as u16).to_le_bytes().to_vec();
    let all = [
        Table { what: "EBDA's segment", gpa: EBDA_SEGMENT, bytes: word(layout::EBDA >> 4) },
        Table { what: "conventional memory", gpa: MEMORY_KIB, bytes: word(ram_end.min(layout::EBDA) >> 10) },
        Table { what: "EBDA's length", gpa: layout::EBDA, bytes: vec![EBDA_KIB] },
    ];
    let is_free = |table: &Table| {
        let end = table.gpa + table.bytes.len() as u64;
        end <= ram_end && segments.iter().all(|segment| end <= segment.start || segment.end <= table.gpa)
    };
    let has_ebda = ram_end > layout::EBDA;
    all.into_iter().filter(|table| (has_ebda || table.gpa != EBDA_SEGMENT) && is_free(table)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(mode: Mode, segments: &[Range<u64>], ram_end: u64) -> Vec<(u64, Vec<u8>)> {
        tables(mode, segments, ram_end).into_iter().map(|table| (table.gpa, table.bytes)).collect()
    }

    #[test]
    fn bios_data_is_639_kib_and_an_ebda_of_1_kib() {
        let expected = [(0x40e, vec![0xc0, 0x9f]), (0x413, vec![0x7f, 0x02]), (0x9_fc00, vec![1])];
        assert_eq!(written(Mode::Protected, &[0x10_0000..0x10_1000], 4 << 20), expected);
        assert_eq!(written(Mode::Paged, &[], 4 << 20), expected);
        assert_eq!(written(Mode::Long, &[], 4 << 20), expected);
    }

    #[test]
    fn bios_data_is_left_out_in_modes_of_16_bits() {
        assert!(written(Mode::Real, &[], 4 << 20).is_empty());
        assert!(written(Mode::Reset, &[], 4 << 20).is_empty());
    }

    /// One overlapping byte is enough; an adjacent one isn't.
    #[test]
    fn bios_data_under_an_image_is_left_out_and_the_rest_is_there() {
        let rest = |segment| written(Mode::Long, &[segment], 4 << 20).into_iter().map(|(gpa, _)| gpa);
        assert!(rest(0x40f..0x410).eq([0x413, 0x9_fc00]));
        assert!(rest(0x410..0x414).eq([0x40e, 0x9_fc00]));
        assert_eq!(rest(0..0x10_0000).count(), 0);
        assert!(rest(0x410..0x413).eq([0x40e, 0x413, 0x9_fc00]));
    }

    #[test]
    fn bios_data_of_a_small_machine_is_the_size_of_its_memory() {
        assert_eq!(written(Mode::Protected, &[], 4096), [(0x413, vec![4, 0])]);
        assert_eq!(written(Mode::Protected, &[], 0x9_f000), [(0x413, vec![0x7c, 0x02])]);
        // A machine has either all or none of the EBDA's page.
        let expected = [(0x40e, vec![0xc0, 0x9f]), (0x413, vec![0x7f, 0x02]), (0x9_fc00, vec![1])];
        assert_eq!(written(Mode::Protected, &[], 0xa_0000), expected);
    }
}
