//! Guest RAM: the ranges, their mappings, and what the rest of the workspace sees of them.

use std::ops::Range;
use std::sync::Arc;

use vm_memory::mmap::MmapRegionError;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

use crate::{PAGE_LEN, mapping};

/// The view of guest RAM through which everybody reads and writes.
pub type Memory = GuestMemoryMmap<()>;

/// Why guest RAM can't be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A range is empty, not whole pages, or starts before the end of the one in front of it.
    #[error("RAM range {start:#x}..{end:#x} is empty, not made of 4 KiB pages, or out of order")]
    BadRange {
        /// First address.
        start: u64,
        /// First address behind it.
        end: u64,
    },
    /// The host gives no mapping of that size.
    #[error("no mapping of {len_mib} MiB for the guest's RAM")]
    Map {
        /// Length asked for, in MiB, rounded up.
        len_mib: u64,
        /// What mmap said.
        source: MmapRegionError,
    },
}

/// One piece of guest RAM: what a KVM memory slot needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical address of its first byte.
    pub gpa: u64,
    /// Length in bytes, a multiple of [`PAGE_LEN`].
    pub len: u64,
    /// Address of its first byte in the monitor.
    pub hva: u64,
}

/// The guest's RAM, mapped and zeroed. Clones are the same RAM; it is unmapped with the last one.
#[derive(Clone, Debug)]
pub struct GuestRam {
    memory: Arc<Memory>,
}

impl GuestRam {
    /// Maps `ranges` of guest-physical addresses, given in ascending order.
    ///
    /// # Errors
    /// A range isn't made of whole pages, ranges overlap, or the host has no room for the mapping.
    pub fn new(ranges: &[Range<u64>]) -> Result<Self, Error> {
        let mut previous_end = 0;
        let mut regions = Vec::with_capacity(ranges.len());
        for &Range { start, end } in ranges {
            let whole = start % PAGE_LEN == 0 && end % PAGE_LEN == 0;
            if !whole || start >= end || start < previous_end {
                return Err(Error::BadRange { start, end });
            }
            previous_end = end;
            let len = end - start;
            let mapping = mapping::map(len as usize)
                .map_err(|source| Error::Map { len_mib: len.div_ceil(1 << 20), source })?;
            let region = GuestRegionMmap::new(mapping, GuestAddress(start));
            regions.push(region.ok_or(Error::BadRange { start, end })?);
        }
        let memory = Memory::from_regions(regions).expect("the ranges were checked to be in order");
        Ok(Self { memory: Arc::new(memory) })
    }

    /// Reads and writes the RAM.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The pieces in ascending order of guest-physical address; a piece's place is its slot number.
    pub fn regions(&self) -> impl Iterator<Item = Region> {
        self.memory.iter().map(|region| Region {
            gpa: region.start_addr().0,
            len: region.len(),
            hva: region.as_ptr() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn ram_is_zeroed() {
        let ram = GuestRam::new(&[0..0x2000]).unwrap();
        let mut bytes = [1; 0x2000];
        ram.memory().read_slice(&mut bytes, GuestAddress(0)).unwrap();
        assert_eq!(bytes, [0; 0x2000]);
    }

    #[test]
    fn ram_hole_between_ranges_is_not_memory() {
        let ram = GuestRam::new(&[0..0x1000, 0x2000..0x3000]).unwrap();
        assert!(ram.memory().write_obj(1_u8, GuestAddress(0x1000)).is_err());
        assert!(ram.memory().write_obj(1_u8, GuestAddress(0x2fff)).is_ok());
    }

    #[test]
    fn ram_range_of_half_a_page_is_refused() {
        let error = GuestRam::new(&[0..0x1800]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "RAM range 0x0..0x1800 is empty, not made of 4 KiB pages, or out of order"
        );
    }

    #[test]
    fn ram_overlapping_or_empty_ranges_are_refused() {
        assert!(matches!(GuestRam::new(&[0..0x2000, 0x1000..0x3000]), Err(Error::BadRange { .. })));
        assert!(matches!(GuestRam::new(&[0x1000..0x1000]), Err(Error::BadRange { .. })));
    }

    #[test]
    fn ram_larger_than_the_address_space_is_an_error() {
        // 2^47 bytes is the whole of user space on x86_64 with four-level paging.
        let error = GuestRam::new(&[0..1 << 47]).unwrap_err();
        assert_eq!(error.to_string(), "no mapping of 134217728 MiB for the guest's RAM");
    }

    proptest! {
        /// Regions give back exactly the ranges asked for, in order.
        #[test]
        fn regions_are_the_ranges(pieces in prop::collection::vec((0u64..4, 1u64..8), 1..6)) {
            let mut at = 0;
            let ranges: Vec<_> = pieces
                .iter()
                .map(|(gap, pages)| {
                    let start = at + gap * PAGE_LEN;
                    at = start + pages * PAGE_LEN;
                    start..at
                })
                .collect();
            let ram = GuestRam::new(&ranges).unwrap();
            let got: Vec<_> = ram.regions().map(|r| r.gpa..r.gpa + r.len).collect();
            prop_assert_eq!(got, ranges);
        }
    }
}
