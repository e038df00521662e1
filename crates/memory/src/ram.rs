//! Guest RAM: its ranges and their mappings.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use vm_memory::mmap::MmapRegionError;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion,
};

use crate::discarded::{Discarded, MAX_CUTS};
use crate::pagemap::Pagemap;
use crate::{NO_PANIC, PAGE_LEN, mapping, shared};

/// The guest memory type that loaders and devices read and write.
pub type Memory = GuestMemoryMmap<()>;

/// What backs guest RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// Private anonymous memory.
    #[default]
    Private,
    /// One memfd that holds all ranges, in order and without gaps. Other processes can map it if they are
    /// passed its descriptor, which is `GuestMemoryRegion::file_offset` of each region of
    /// [`GuestRam::memory`].
    Shared,
}

/// Errors from building guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A range is empty, isn't page-aligned, or starts before the end of the previous one.
    #[error("RAM range {start:#x}..{end:#x} is empty, not made of 4 KiB pages, or out of order")]
    BadRange {
        /// Start of the range.
        start: u64,
        /// End of the range, exclusive.
        end: u64,
    },
    /// The memfd can't be created at that size.
    #[error("can't create a memfd of {len_mib} MiB for guest RAM")]
    File {
        /// Requested length in MiB, rounded up.
        len_mib: u64,
        /// Error from the host.
        source: io::Error,
    },
    /// The host can't map that much memory.
    #[error("can't map {len_mib} MiB for guest RAM")]
    Map {
        /// Requested length in MiB, rounded up.
        len_mib: u64,
        /// Error from mmap.
        source: MmapRegionError,
    },
    /// Copies of the pages that are written can't be shared with other processes.
    #[error(
        "guest RAM that is copied on write can't be shared with other processes: memory.shared needs --memory copy"
    )]
    SharedCopyOnWrite,
    /// The file's offset of a range isn't page-aligned.
    #[error("offset {offset:#x} of guest RAM at {gpa:#x} in its file isn't a multiple of 4 KiB")]
    BadOffset {
        /// Guest-physical address of the range.
        gpa: u64,
        /// Its offset in the file.
        offset: u64,
    },
    /// The file doesn't have all of the RAM.
    #[error("the file of guest RAM has {len} bytes instead of {needed} or more")]
    ShortFile {
        /// Its length in bytes.
        len: u64,
        /// Where the last of the ranges ends.
        needed: u64,
    },
    /// The file can't be read.
    #[error("can't read the file of guest RAM, {len} bytes at {offset:#x}")]
    ReadFile {
        /// Offset in the file.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// Error from the host; `UnexpectedEof` if the file has been shortened.
        source: io::Error,
    },
}

/// Errors from [`GuestRam::discard`].
#[derive(Debug, thiserror::Error)]
pub enum DiscardError {
    /// The range isn't made of whole pages of guest RAM.
    #[error("{len:#x} bytes at {gpa:#x} aren't whole pages of guest RAM")]
    NotPages {
        /// Guest-physical address.
        gpa: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The host refuses, as it does for locked memory.
    #[error("can't discard {len:#x} bytes at {gpa:#x} of guest RAM")]
    Refused {
        /// Guest-physical address.
        gpa: u64,
        /// Length in bytes.
        len: u64,
        /// Error from the host.
        source: io::Error,
    },
    /// Each discard cuts a copy-on-write mapping into pieces, and there are as many as Linux allows a process by default, but for those
    /// that the monitor needs itself.
    #[error(
        "can't discard {len:#x} bytes at {gpa:#x} of guest RAM: its copy-on-write mapping is in {MAX_CUTS} pieces; \
         --memory copy has no such limit"
    )]
    TooManyPieces {
        /// Guest-physical address.
        gpa: u64,
        /// Length in bytes.
        len: u64,
    },
}

/// A range of guest memory, with what a KVM memory slot needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical address of its first byte.
    pub gpa: u64,
    /// Length in bytes, a multiple of [`PAGE_LEN`].
    pub len: u64,
    /// Host virtual address of its first byte.
    pub hva: u64,
}

/// Guest RAM, mapped and initially zero or with the contents of a file. Clones share the RAM, which is unmapped when the last one is
/// dropped.
#[derive(Clone, Debug)]
pub struct GuestRam {
    memory: Arc<Memory>,
    /// If the RAM is a copy-on-write mapping: which guest-physical ranges aren't the file's any more.
    pub(crate) discarded: Option<Arc<Mutex<Discarded>>>,
    pub(crate) pagemap: Option<Pagemap>,
}

impl GuestRam {
    /// Maps private memory for `ranges` of guest-physical addresses, which must be in ascending order.
    ///
    /// # Errors
    /// As for [`with_backing`](Self::with_backing).
    pub fn new(ranges: &[Range<u64>]) -> Result<Self, Error> {
        Self::with_backing(ranges, Backing::Private)
    }

    /// Maps memory for `ranges` of guest-physical addresses, which must be in ascending order.
    ///
    /// # Errors
    /// A range isn't made of whole pages, ranges overlap, or the host can't create the mapping or its memfd.
    pub fn with_backing(ranges: &[Range<u64>], backing: Backing) -> Result<Self, Error> {
        check(ranges)?;
        let len: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let file = (backing == Backing::Shared).then(|| shared::file(len)).transpose();
        let file = file.map_err(|source| Error::File { len_mib: len.div_ceil(1 << 20), source })?;
        let mut offset = 0;
        let memory = map_ranges(ranges, |_, len| {
            let Some(file) = &file else { return mapping::map(len) };
            let start = offset;
            offset += len as u64;
            mapping::map_shared(&FileOffset::from_arc(Arc::clone(file), start), len)
        })?;
        Ok(Self { memory: Arc::new(memory), discarded: None, pagemap: None })
    }

    /// Maps `ranges`, which have been checked, from these places in `file`: the pages that are written are copied.
    pub(crate) fn copy_on_write(
        file: &Arc<File>,
        ranges: &[Range<u64>],
        offsets: &[u64],
    ) -> Result<Self, Error> {
        let memory = map_ranges(ranges, |index, len| {
            mapping::map_copy_on_write(&FileOffset::from_arc(Arc::clone(file), offsets[index]), len)
        })?;
        let discarded = Some(Arc::new(Mutex::new(Discarded::default())));
        Ok(Self { memory: Arc::new(memory), discarded, pagemap: None })
    }

    /// Has [`populated`](Self::populated) ask the host which pages of private memory it holds.
    #[must_use]
    pub fn with_pagemap(self, pagemap: Pagemap) -> Self {
        Self { pagemap: Some(pagemap), ..self }
    }

    /// The memory, for reading and writing.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The regions in ascending order of guest-physical address. A region's index is its slot number.
    pub fn regions(&self) -> impl Iterator<Item = Region> {
        self.memory.iter().map(|region| Region {
            gpa: region.start_addr().0,
            len: region.len(),
            hva: region.as_ptr() as u64,
        })
    }

    /// Whether a file that is mapped [copy-on-write](crate::Loading::CopyOnWrite) has become shorter than what is mapped of it. Pages that
    /// nobody has changed are then lost.
    #[must_use]
    pub fn has_lost_pages(&self) -> bool {
        let is_short = |region: &GuestRegionMmap| {
            let Some(file) = region.file_offset().filter(|_| mapping::is_copy_on_write(region)) else {
                return false;
            };
            let end = file.start().saturating_add(region.len());
            file.file().metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() < end)
        };
        self.memory.iter().any(is_short)
    }

    /// Returns the pages at `gpa..gpa + len` to the host. The range may span adjacent regions.
    ///
    /// The pages read as zeros afterwards, for the guest too, and are allocated again when touched
    /// (madvise(2), MADV_DONTNEED; for shared RAM fallocate(2), FALLOC_FL_PUNCH_HOLE; for RAM that is copied on
    /// write anonymous memory, by mremap(2); KVM's MMU notifier updates the guest's mappings). It is safe to let
    /// the guest choose the range: only its own memory is affected.
    ///
    /// A device that accesses the pages concurrently does so before or after the discard. What it writes may
    /// be lost, but the guest gave that memory away. Host I/O that has pinned the pages (O_DIRECT) continues
    /// with the old pages, which nobody sees any more.
    ///
    /// # Errors
    /// The range isn't made of whole pages of RAM, in which case nothing is discarded; or the host refuses
    /// some of it, or has too many mappings, in which case that part keeps its contents.
    pub fn discard(&self, gpa: u64, len: u64) -> Result<(), DiscardError> {
        let is_whole = gpa.is_multiple_of(PAGE_LEN) && len.is_multiple_of(PAGE_LEN) && len > 0;
        let size = usize::try_from(len).ok().filter(|_| is_whole);
        if !size.is_some_and(|size| self.memory.check_range(GuestAddress(gpa), size)) {
            return Err(DiscardError::NotPages { gpa, len });
        }
        let mut at = gpa;
        while at < gpa + len {
            let region = self.memory.find_region(GuestAddress(at)).expect("all of it was found to be RAM");
            let offset = at - region.start_addr().0;
            let count = (region.len() - offset).min(gpa + len - at);
            self.discard_in(region, offset as usize, at..at + count)?;
            at += count;
        }
        Ok(())
    }

    /// Discards `range`, which is at `offset` of `region`.
    fn discard_in(&self, region: &MmapRegion, offset: usize, range: Range<u64>) -> Result<(), DiscardError> {
        let (gpa, len) = (range.start, range.end - range.start);
        let refused = |source| DiscardError::Refused { gpa, len, source };
        let Some(discarded) = &self.discarded else {
            return mapping::discard(region, offset, len as usize).map_err(refused);
        };
        // Not held during the system calls. What was discarded stays discarded; to do it twice, if two threads discard the same, does
        // no harm.
        let (has, has_room) = {
            let discarded = discarded.lock().expect(NO_PANIC);
            (discarded.has(&range), discarded.has_room())
        };
        if has {
            return mapping::discard_again(region, offset, len as usize).map_err(refused);
        }
        if !has_room {
            return Err(DiscardError::TooManyPieces { gpa, len });
        }
        mapping::discard(region, offset, len as usize).map_err(refused)?;
        discarded.lock().expect(NO_PANIC).add(&range);
        Ok(())
    }
}

/// Maps each of `ranges`, which have been checked, by `map`, which gets its index and its length.
fn map_ranges(
    ranges: &[Range<u64>],
    mut map: impl FnMut(usize, usize) -> Result<MmapRegion, MmapRegionError>,
) -> Result<Memory, Error> {
    let mut regions = Vec::with_capacity(ranges.len());
    for (index, &Range { start, end }) in ranges.iter().enumerate() {
        let len = end - start;
        let mapping = map(index, len as usize);
        let mapping = mapping.map_err(|source| Error::Map { len_mib: len.div_ceil(1 << 20), source })?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(start));
        regions.push(region.ok_or(Error::BadRange { start, end })?);
    }
    Ok(Memory::from_regions(regions).expect("the ranges were checked to be in order"))
}

/// Checks that each range is page-aligned and starts at or after the end of the previous one.
pub(crate) fn check(ranges: &[Range<u64>]) -> Result<(), Error> {
    let mut previous_end = 0;
    for &Range { start, end } in ranges {
        let whole = start % PAGE_LEN == 0 && end % PAGE_LEN == 0;
        if !whole || start >= end || start < previous_end {
            return Err(Error::BadRange { start, end });
        }
        previous_end = end;
    }
    Ok(())
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
        // 2^47 bytes is all of user space on x86_64 with four-level paging.
        let error = GuestRam::new(&[0..1 << 47]).unwrap_err();
        assert_eq!(error.to_string(), "can't map 134217728 MiB for guest RAM");
    }

    /// Bytes of the region that occupy host memory (Linux, Documentation/admin-guide/mm/pagemap.rst: bit 63
    /// is "page present", bit 62 "page swapped").
    fn resident(region: Region) -> u64 {
        let mut entries = vec![0; (region.len / PAGE_LEN * 8) as usize];
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&pagemap, &mut entries, region.hva / PAGE_LEN * 8).unwrap();
        entries.chunks(8).filter(|entry| entry[7] >> 6 != 0).count() as u64 * PAGE_LEN
    }

    #[test]
    fn discard_frees_the_hosts_memory_and_leaves_zeros() {
        let ram = GuestRam::new(&[0..0x80_0000]).unwrap();
        let region = ram.regions().next().unwrap();
        ram.memory().write_slice(&vec![7; 0x80_0000], GuestAddress(0)).unwrap();
        assert_eq!(resident(region), 0x80_0000);
        ram.discard(0x20_0000, 0x40_0000).unwrap();
        assert_eq!(resident(region), 0x40_0000);
        assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(0x1f_ffff)).unwrap(), 7);
        assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(0x20_0000)).unwrap(), 0);
        assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(0x5f_ffff)).unwrap(), 0);
        assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(0x60_0000)).unwrap(), 7);
    }

    #[test]
    fn discard_across_regions_that_touch_reaches_both() {
        let ram = GuestRam::new(&[0..0x2000, 0x2000..0x4000]).unwrap();
        ram.memory().write_slice(&[7; 0x4000], GuestAddress(0)).unwrap();
        ram.discard(0x1000, 0x2000).unwrap();
        let mut bytes = [1; 0x4000];
        ram.memory().read_slice(&mut bytes, GuestAddress(0)).unwrap();
        assert_eq!(bytes[..0x1000], [7; 0x1000]);
        assert_eq!(bytes[0x1000..0x3000], [0; 0x2000]);
        assert_eq!(bytes[0x3000..], [7; 0x1000]);
    }

    #[test]
    fn discard_of_what_is_not_all_ram_touches_nothing() {
        let ram = GuestRam::new(&[0..0x2000, 0x3000..0x4000]).unwrap();
        ram.memory().write_obj(7_u8, GuestAddress(0x1000)).unwrap();
        let refused = |gpa, len| matches!(ram.discard(gpa, len), Err(DiscardError::NotPages { .. }));
        // Into a hole, across a hole, past the end, wrapping around; empty, half a page, misaligned by half a
        // page.
        assert!(refused(0x1000, 0x2000) && refused(0x1000, 0x3000) && refused(0x3000, 0x2000));
        assert!(refused(0x1000, !0xfff) && refused(!0xfff, 0x1000) && refused(!0xfff, 0x2000));
        assert!(refused(0x1000, 0) && refused(0x1000, 0x800) && refused(0x800, 0x1000));
        assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(0x1000)).unwrap(), 7);
        let error = ram.discard(0x1000, 0x3000).unwrap_err();
        assert_eq!(error.to_string(), "0x3000 bytes at 0x1000 aren't whole pages of guest RAM");
    }

    fn shared(ranges: &[Range<u64>]) -> GuestRam {
        GuestRam::with_backing(ranges, Backing::Shared).unwrap()
    }

    /// Bytes of host memory that the memfd occupies: st_blocks counts 512-byte units.
    fn file_memory(ram: &GuestRam) -> u64 {
        let region = ram.memory().iter().next().unwrap();
        std::os::unix::fs::MetadataExt::blocks(&region.file_offset().unwrap().file().metadata().unwrap())
            * 512
    }

    /// The memfd as another process would map it.
    #[test]
    fn shared_ram_is_one_file_in_the_order_of_the_ranges() {
        let ram = shared(&[0..0x2000, 0x1_0000_0000..0x1_0000_1000]);
        ram.memory().write_slice(b"low", GuestAddress(0x1ffd)).unwrap();
        ram.memory().write_slice(b"high", GuestAddress(0x1_0000_0000)).unwrap();
        let offsets: Vec<_> = ram.memory().iter().map(|region| region.file_offset().unwrap()).collect();
        assert_eq!(offsets.iter().map(|offset| offset.start()).collect::<Vec<_>>(), [0, 0x2000]);
        let mut bytes = [0; 7];
        std::os::unix::fs::FileExt::read_exact_at(offsets[1].file(), &mut bytes, 0x1ffd).unwrap();
        assert_eq!(&bytes, b"lowhigh");
        std::os::unix::fs::FileExt::write_all_at(offsets[0].file(), b"L", 0x1ffd).unwrap();
        assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(0x1ffd)).unwrap(), b'L');
    }

    #[test]
    fn private_ram_has_no_file() {
        let ram = GuestRam::new(&[0..0x1000]).unwrap();
        assert!(ram.memory().iter().all(|region| region.file_offset().is_none()));
    }

    #[test]
    fn shared_ram_takes_no_memory_before_it_is_touched_and_is_zeroed() {
        let ram = shared(&[0..1 << 40]);
        assert_eq!(file_memory(&ram), 0);
        assert_eq!(ram.memory().read_obj::<u64>(GuestAddress(0x1234_5678)).unwrap(), 0);
    }

    #[test]
    fn discard_of_shared_ram_frees_the_hosts_memory_and_leaves_zeros() {
        let ram = shared(&[0..0x40_0000, 0x40_0000..0x80_0000]);
        ram.memory().write_slice(&vec![7; 0x80_0000], GuestAddress(0)).unwrap();
        assert_eq!(file_memory(&ram), 0x80_0000);
        // The range covers parts of both regions, whose file offsets differ.
        ram.discard(0x20_0000, 0x40_0000).unwrap();
        assert_eq!(file_memory(&ram), 0x40_0000);
        let mut bytes = vec![1; 0x80_0000];
        ram.memory().read_slice(&mut bytes, GuestAddress(0)).unwrap();
        let kept = |range: Range<usize>| bytes[range].iter().all(|byte| *byte == 7);
        assert!(kept(0..0x20_0000) && kept(0x60_0000..0x80_0000));
        assert!(bytes[0x20_0000..0x60_0000].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn discard_of_what_is_not_all_shared_ram_touches_nothing() {
        let ram = shared(&[0..0x2000, 0x3000..0x4000]);
        ram.memory().write_slice(&[7; 0x1000], GuestAddress(0x3000)).unwrap();
        let refused = |gpa, len| matches!(ram.discard(gpa, len), Err(DiscardError::NotPages { .. }));
        assert!(refused(0x1000, 0x2000) && refused(0x3000, 0x2000) && refused(0x800, 0x1000));
        assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(0x3000)).unwrap(), 7);
    }

    #[test]
    fn shared_ram_larger_than_a_file_can_be_is_an_error() {
        let error = GuestRam::with_backing(&[0..1 << 63], Backing::Shared).unwrap_err();
        assert_eq!(error.to_string(), "can't create a memfd of 8796093022208 MiB for guest RAM");
    }

    proptest! {
        /// The regions are exactly the ranges asked for, in order.
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
