//! Where guest memory lies in the memory file.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Size of a page, the unit in which memory is written.
pub const PAGE_LEN: u64 = 4096;
/// A region's offset in the file is a multiple of this, 2 MiB, so that the region can be mapped with huge pages.
pub const REGION_ALIGNMENT: u64 = 2 << 20;
/// Where guest-physical addresses end: x86's have at most 52 bits.
const END_OF_ADDRESSES: u64 = 1 << 52;

/// Where guest memory lies in the memory file: region after region in the order of their addresses, each at the next multiple of
/// [`REGION_ALIGNMENT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Listed", into = "Listed")]
pub struct MemoryLayout {
    regions: Vec<MemoryRegion>,
}

/// A region of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryRegion {
    /// Its guest-physical address, in whole pages.
    #[serde(rename = "address")]
    pub gpa: u64,
    /// Its length in bytes, in whole pages.
    pub len: u64,
    /// Where it begins in the memory file.
    pub offset: u64,
}

/// The layout as it is in the manifest.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    len: u64,
    regions: Vec<MemoryRegion>,
}

/// Why ranges of addresses can't be guest memory, or a list of regions isn't a layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A range has no bytes, isn't in whole pages, or ends beyond what a processor can address.
    #[error("memory at {:#x}..{:#x}: not in whole pages below 2^52", .0.start, .0.end)]
    Range(Range<u64>),
    /// A range begins before the previous one has ended.
    #[error("memory at {0:#x}: the region before it hasn't ended there")]
    Order(u64),
    /// A region isn't where this format puts it.
    #[error("memory at {gpa:#x}: its offset is {offset}, expected {expected}")]
    Offset {
        /// Address of the region.
        gpa: u64,
        /// Its offset.
        offset: u64,
        /// The offset that it should have.
        expected: u64,
    },
    /// The length of the whole doesn't fit its regions.
    #[error("memory: its length is {len}, but its last region ends at {end}")]
    Len {
        /// The length.
        len: u64,
        /// Where the last region ends.
        end: u64,
    },
}

impl MemoryLayout {
    /// The layout of guest memory at these addresses, in ascending order.
    ///
    /// # Errors
    /// A range is empty, isn't in whole pages, begins before the previous one's end, or ends beyond 2^52.
    pub fn of(ranges: impl IntoIterator<Item = Range<u64>>) -> Result<Self, LayoutError> {
        let mut regions = Vec::<MemoryRegion>::new();
        for range in ranges {
            let is_whole = range.start.is_multiple_of(PAGE_LEN) && range.end.is_multiple_of(PAGE_LEN);
            if range.is_empty() || !is_whole || range.end > END_OF_ADDRESSES {
                return Err(LayoutError::Range(range));
            }
            let mut offset = 0;
            if let Some(last) = regions.last() {
                if range.start < last.gpa + last.len {
                    return Err(LayoutError::Order(range.start));
                }
                offset = last.end().next_multiple_of(REGION_ALIGNMENT);
            }
            regions.push(MemoryRegion { gpa: range.start, len: range.end - range.start, offset });
        }
        Ok(Self { regions })
    }

    /// The regions, in the order of their addresses.
    pub fn regions(&self) -> &[MemoryRegion] {
        &self.regions
    }

    /// Length of the memory file in bytes: where the last region ends.
    #[expect(clippy::len_without_is_empty, reason = "a file without bytes has no regions")]
    pub fn len(&self) -> u64 {
        self.regions.last().map_or(0, MemoryRegion::end)
    }

    /// Where so many bytes at a guest-physical address begin in the file, if they are in one region.
    pub fn offset_of(&self, gpa: u64, len: u64) -> Option<u64> {
        let end = gpa.checked_add(len)?;
        let is_in = |region: &&MemoryRegion| region.gpa <= gpa && end <= region.gpa + region.len;
        self.regions.iter().find(is_in).map(|region| region.offset + (gpa - region.gpa))
    }

    /// Whether so many bytes at an offset of the file are whole pages of one region.
    pub(crate) fn has(&self, offset: u64, len: u64) -> bool {
        let Some(end) = offset.checked_add(len) else { return false };
        let is_whole = offset.is_multiple_of(PAGE_LEN) && len.is_multiple_of(PAGE_LEN);
        is_whole && self.regions.iter().any(|region| region.offset <= offset && end <= region.end())
    }
}

impl MemoryRegion {
    /// Where it ends in the memory file, below 2^62: there are at most 2^40 regions, because they are disjoint and have a page at least,
    /// and each is padded by less than 2^21 bytes.
    fn end(&self) -> u64 {
        self.offset + self.len
    }
}

impl From<MemoryLayout> for Listed {
    fn from(layout: MemoryLayout) -> Self {
        Self { len: layout.len(), regions: layout.regions }
    }
}

impl TryFrom<Listed> for MemoryLayout {
    type Error = LayoutError;

    fn try_from(Listed { len, regions }: Listed) -> Result<Self, LayoutError> {
        // A sum that overflows ends beyond all addresses.
        let range = |region: &MemoryRegion| region.gpa..region.gpa.saturating_add(region.len);
        let layout = Self::of(regions.iter().map(range))?;
        let differing = regions.iter().zip(&layout.regions).find(|(listed, own)| listed.offset != own.offset);
        if let Some((MemoryRegion { gpa, offset, .. }, own)) = differing {
            return Err(LayoutError::Offset { gpa: *gpa, offset: *offset, expected: own.offset });
        }
        if layout.len() != len {
            return Err(LayoutError::Len { len, end: layout.len() });
        }
        Ok(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn second_region_begins_at_a_multiple_of_2_mib() {
        let layout = MemoryLayout::of([0..3 * MIB, 4096 * MIB..4097 * MIB]).unwrap();
        let first = MemoryRegion { gpa: 0, len: 3 * MIB, offset: 0 };
        let second = MemoryRegion { gpa: 4096 * MIB, len: MIB, offset: 4 * MIB };
        assert_eq!(layout.regions(), [first, second]);
        assert_eq!(layout.len(), 5 * MIB);
    }

    #[test]
    fn range_that_is_empty_or_not_in_pages_is_refused() {
        assert_eq!(MemoryLayout::of([0..0]), Err(LayoutError::Range(0..0)));
        assert_eq!(MemoryLayout::of([1..4096]), Err(LayoutError::Range(1..4096)));
        assert_eq!(MemoryLayout::of([0..4097]), Err(LayoutError::Range(0..4097)));
    }

    #[test]
    fn range_beyond_52_bits_is_refused() {
        let range = (1 << 52) - 4096..(1 << 52) + 4096;
        assert_eq!(MemoryLayout::of([range.clone()]), Err(LayoutError::Range(range)));
    }

    #[test]
    fn ranges_out_of_order_are_refused() {
        assert_eq!(MemoryLayout::of([0..8192, 4096..12288]), Err(LayoutError::Order(4096)));
    }

    #[test]
    fn pages_between_regions_are_in_none() {
        let layout = MemoryLayout::of([0..3 * MIB, 4096 * MIB..4097 * MIB]).unwrap();
        assert!(layout.has(2 * MIB, MIB));
        assert!(!layout.has(2 * MIB, 2 * MIB));
        assert!(!layout.has(3 * MIB, MIB));
        assert!(layout.has(4 * MIB, MIB));
        assert!(!layout.has(4 * MIB, MIB + 4096));
        assert!(!layout.has(1, 4096));
        assert!(!layout.has(0, 100));
        assert!(!layout.has(u64::MAX - 4095, 4096));
    }

    #[test]
    fn offset_is_that_of_the_region() {
        let layout = MemoryLayout::of([0..3 * MIB, 4096 * MIB..4097 * MIB]).unwrap();
        assert_eq!(layout.offset_of(MIB, 2 * MIB), Some(MIB));
        assert_eq!(layout.offset_of(4096 * MIB + 4096, MIB - 4096), Some(4 * MIB + 4096));
        assert_eq!(layout.offset_of(2 * MIB, 2 * MIB), None);
        assert_eq!(layout.offset_of(3 * MIB, 4096), None);
        assert_eq!(layout.offset_of(4097 * MIB, 4096), None);
        assert_eq!(layout.offset_of(u64::MAX, 4096), None);
    }

    fn listed(json: &str) -> Result<MemoryLayout, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn listed_layout_is_the_layout() {
        let json = r#"{"len": 4096, "regions": [{"address": 0, "len": 4096, "offset": 0}]}"#;
        assert_eq!(listed(json), Ok(MemoryLayout::of([0..4096]).unwrap()));
    }

    #[test]
    fn listed_layout_with_another_offset_or_length_is_refused() {
        let json = r#"{"len": 8192, "regions": [{"address": 0, "len": 4096, "offset": 4096}]}"#;
        assert_eq!(listed(json).unwrap_err(), "memory at 0x0: its offset is 4096, expected 0");
        let json = r#"{"len": 8192, "regions": [{"address": 0, "len": 4096, "offset": 0}]}"#;
        assert_eq!(listed(json).unwrap_err(), "memory: its length is 8192, but its last region ends at 4096");
    }

    #[test]
    fn listed_layout_whose_end_overflows_is_refused() {
        let json = r#"{"len": 0, "regions": [{"address": 4096, "len": 18446744073709547520, "offset": 0}]}"#;
        assert!(listed(json).unwrap_err().starts_with("memory at 0x1000..0xffffffffffffffff: "));
    }
}
