//! Guest memory into and out of a snapshot's memory file.

use std::fs::File;
use std::sync::Arc;

use vmm_memory::vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_memory::{Backing, FileRange, GuestRam, Loading};
use vmm_snapshot::{Error, MemoryLayout, MemoryWriter};

/// Bytes copied at a time: what a processor's second cache has room for, so that looking for zeros and writing read from there.
const CHUNK_LEN: u64 = 1 << 20;

/// Writes what isn't zero of `ram`, which nobody may change meanwhile, at its places in `layout`. Returns the number of bytes stored.
///
/// It makes the system calls pread64 and lseek, besides the writer's.
///
/// # Errors
/// [`Error::Cancelled`] if `cancelled`, which is asked once for each MiB at most; the host can't write; `layout` isn't that of `ram`.
pub(crate) fn write_memory(
    ram: &GuestRam,
    layout: &MemoryLayout,
    writer: &MemoryWriter<'_>,
    cancelled: impl Fn() -> bool,
) -> Result<u64, Error> {
    let mut stored = 0;
    let mut buffer = vec![0; CHUNK_LEN as usize];
    for range in ram.populated() {
        let mut gpa = range.start;
        while gpa < range.end {
            if cancelled() {
                return Err(Error::Cancelled);
            }
            let len = CHUNK_LEN.min(range.end - gpa);
            let pages = &mut buffer[..len as usize];
            let slice = ram.memory().get_slice(GuestAddress(gpa), pages.len());
            slice.expect("what is populated is in one region").copy_to(pages);
            let offset = layout.offset_of(gpa, len).ok_or(Error::NotSaved { gpa, len })?;
            stored += writer.write(offset, pages)?;
            gpa += len;
        }
    }
    Ok(stored)
}

/// Maps or copies the memory that a snapshot has in `file`, as [`GuestRam::from_file`] does.
///
/// # Errors
/// Those of [`GuestRam::from_file`].
pub(crate) fn read_memory(
    file: Arc<File>,
    layout: &MemoryLayout,
    loading: Loading,
    backing: Backing,
) -> Result<GuestRam, vmm_memory::Error> {
    let ranges = layout.regions().iter().map(|region| FileRange {
        gpa: region.gpa,
        len: region.len,
        offset: region.offset,
    });
    GuestRam::from_file(file, &ranges.collect::<Vec<_>>(), loading, backing)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::MetadataExt;

    use vmm_memory::vm_memory::Bytes;
    use vmm_memory::{PAGE_LEN, Pagemap};
    use vmm_snapshot::SnapshotFiles;

    use super::*;

    const MIB: u64 = 1 << 20;
    /// Above the 32-bit gap.
    const HIGH: u64 = 4096 * MIB;

    /// 3 MiB, so that a range is longer than a chunk, and 1 MiB that begins at the next 2 MiB of the file.
    fn layout() -> MemoryLayout {
        MemoryLayout::of([0..3 * MIB, HIGH..HIGH + MIB]).unwrap()
    }

    fn ram(backing: Backing) -> GuestRam {
        GuestRam::with_backing(&[0..3 * MIB, HIGH..HIGH + MIB], backing).unwrap().with_pagemap(pagemap())
    }

    fn pagemap() -> Pagemap {
        Pagemap::open().unwrap()
    }

    fn write(ram: &GuestRam, gpa: u64, text: &[u8]) {
        ram.memory().write_slice(text, GuestAddress(gpa)).unwrap();
    }

    /// Saves it; returns the file, and the number of bytes stored.
    fn saved(ram: &GuestRam) -> (File, u64) {
        let [state, memory] = [(); 2].map(|()| tempfile::tempfile().unwrap());
        let files = SnapshotFiles { manifest: None, state, memory };
        let layout = layout();
        let writer = files.start_memory(&layout).unwrap();
        let stored = write_memory(ram, &layout, &writer, || false).unwrap();
        (files.memory, stored)
    }

    fn restored(file: File, loading: Loading, backing: Backing) -> GuestRam {
        read_memory(Arc::new(file), &layout(), loading, backing).unwrap().with_pagemap(pagemap())
    }

    fn bytes(ram: &GuestRam) -> Vec<u8> {
        let mut bytes = vec![0; 4 << 20];
        let (low, high) = bytes.split_at_mut(3 << 20);
        ram.memory().read_slice(low, GuestAddress(0)).unwrap();
        ram.memory().read_slice(high, GuestAddress(HIGH)).unwrap();
        bytes
    }

    /// Pages all over both regions, each other than the rest.
    fn fill(ram: &GuestRam) {
        for (index, page) in [0, 1, 5, 255, 256, 300, 301, 302, 767].into_iter().enumerate() {
            write(ram, page * PAGE_LEN, &[index as u8 + 1; PAGE_LEN as usize]);
        }
        write(ram, 2 * MIB - 1, b"across chunks");
        write(ram, HIGH, b"first of the second");
        write(ram, HIGH + MIB - 4, b"last");
    }

    #[track_caller]
    fn assert_round_trip(backing: Backing) {
        let ram = ram(backing);
        fill(&ram);
        let (file, _) = saved(&ram);
        let expected = bytes(&ram);
        assert!(
            bytes(&restored(file.try_clone().unwrap(), Loading::CopyOnWrite, Backing::Private)) == expected
        );
        assert!(bytes(&restored(file.try_clone().unwrap(), Loading::Copy, Backing::Private)) == expected);
        assert!(bytes(&restored(file, Loading::Copy, Backing::Shared)) == expected);
    }

    #[test]
    fn memory_that_was_saved_is_restored() {
        assert_round_trip(Backing::Private);
        assert_round_trip(Backing::Shared);
    }

    #[test]
    fn memory_is_saved_without_a_pagemap_too() {
        let ram = GuestRam::new(&[0..3 * MIB, HIGH..HIGH + MIB]).unwrap();
        fill(&ram);
        let (file, _) = saved(&ram);
        assert!(bytes(&restored(file, Loading::Copy, Backing::Private)) == bytes(&ram));
    }

    /// Room on the disk, without what the file system needs for its own records.
    fn stored_pages(file: &File) -> u64 {
        file.metadata().unwrap().blocks() * 512 / PAGE_LEN
    }

    /// A page of zeros that the guest has touched, and pages that it hasn't.
    #[test]
    fn memory_that_is_zero_is_a_hole() {
        let ram = ram(Backing::Private);
        write(&ram, 0x5000, b"data");
        write(&ram, 0x7000, &[0; 8]);
        write(&ram, HIGH, b"data");
        let (file, stored) = saved(&ram);
        assert_eq!(stored, 2 * PAGE_LEN);
        assert!((2..8).contains(&stored_pages(&file)), "{}", stored_pages(&file));
        assert_eq!(file.metadata().unwrap().len(), 5 * MIB);
    }

    fn held(ram: &GuestRam) -> u64 {
        ram.populated().map(|range| range.end - range.start).sum()
    }

    #[test]
    fn memory_that_was_not_touched_takes_no_room_after_it_was_saved() {
        let [private, shared] = [Backing::Private, Backing::Shared].map(ram);
        [&private, &shared].into_iter().for_each(|ram| write(ram, HIGH + 0x4000, b"data"));
        let before = [held(&private), held(&shared)];
        [&private, &shared].into_iter().for_each(|ram| drop(saved(ram)));
        assert_eq!([held(&private), held(&shared)], before);
        assert_eq!(before, [PAGE_LEN; 2]);
    }

    /// A snapshot of a machine that was restored from one.
    #[test]
    fn memory_that_was_restored_is_saved_again() {
        let first = ram(Backing::Private);
        fill(&first);
        let second = restored(saved(&first).0, Loading::CopyOnWrite, Backing::Private);
        write(&second, 5 * PAGE_LEN, b"changed");
        write(&second, 8 * PAGE_LEN, b"new");
        // One that was changed, one that has the file's contents and was never touched.
        second.discard(PAGE_LEN, PAGE_LEN).unwrap();
        write(&second, 0, b"changed");
        second.discard(0, PAGE_LEN).unwrap();
        let (file, stored) = saved(&second);
        let mut expected = bytes(&first);
        expected[..2 * PAGE_LEN as usize].fill(0);
        expected[5 * PAGE_LEN as usize..][..7].copy_from_slice(b"changed");
        expected[8 * PAGE_LEN as usize..][..3].copy_from_slice(b"new");
        assert!(bytes(&restored(file, Loading::Copy, Backing::Private)) == expected);
        let pages =
            expected.chunks(PAGE_LEN as usize).filter(|page| page.iter().any(|byte| *byte != 0)).count();
        assert_eq!(stored, pages as u64 * PAGE_LEN);
    }

    #[test]
    fn saving_that_is_cancelled_ends() {
        let ram = ram(Backing::Shared);
        (0..3 * MIB).step_by(PAGE_LEN as usize).for_each(|gpa| write(&ram, gpa, b"data"));
        let [state, memory] = [(); 2].map(|()| tempfile::tempfile().unwrap());
        let files = SnapshotFiles { manifest: None, state, memory };
        let layout = layout();
        let writer = files.start_memory(&layout).unwrap();
        let asked = Cell::new(0);
        let cancelled = || asked.replace(asked.get() + 1) == 1;
        let error = write_memory(&ram, &layout, &writer, cancelled).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert_eq!((asked.get(), stored_pages(&files.memory) / 256), (2, 1));
    }

    #[test]
    fn memory_that_is_not_in_the_layout_is_refused() {
        let ram = GuestRam::new(&[0..3 * MIB]).unwrap();
        let [state, memory] = [(); 2].map(|()| tempfile::tempfile().unwrap());
        let files = SnapshotFiles { manifest: None, state, memory };
        let layout = MemoryLayout::of([0..2 * MIB]).unwrap();
        let writer = files.start_memory(&layout).unwrap();
        let error = write_memory(&ram, &layout, &writer, || false).unwrap_err();
        assert_eq!(error.to_string(), "memory: 1048576 bytes at guest address 0x200000 aren't in the layout");
    }
}
