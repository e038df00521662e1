//! Which parts of guest RAM may be other than zeros, without touching the rest.

use std::io;
use std::ops::Range;
use std::sync::Mutex;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use vm_memory::{FileOffset, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

use crate::discarded::Discarded;
use crate::pagemap::HeldPages;
use crate::{GuestRam, NO_PANIC, PAGE_LEN, mapping};

impl GuestRam {
    /// The guest-physical ranges that may be other than zeros: whole pages in ascending order, each range in one region. Reading the
    /// others would take host memory for pages that nobody has touched.
    ///
    /// It asks the host about private memory by the [`Pagemap`](crate::Pagemap), about files by lseek(2), SEEK_DATA and SEEK_HOLE. What
    /// the host doesn't tell, as it does without a pagemap, counts as populated. A range that a guest or a device writes meanwhile may
    /// be missing.
    pub fn populated(&self) -> impl Iterator<Item = Range<u64>> {
        self.memory().iter().flat_map(|region| {
            let (gpa, len) = (region.start_addr().0, region.len());
            let mut sources = self.sources(region);
            let mut at = 0;
            std::iter::from_fn(move || {
                let found = sources.iter_mut().map(|source| source.next(at));
                let found = found.min_by_key(|found| found.start).filter(|found| !found.is_empty())?;
                debug_assert!(at <= found.start && found.end <= len, "{found:?} at {at}");
                at = found.end;
                Some(gpa + found.start..gpa + found.end)
            })
        })
    }

    /// Where the contents of a region can be. The union of what the sources find is all that isn't zero.
    fn sources<'a>(&'a self, region: &'a GuestRegionMmap) -> Vec<Source<'a>> {
        let (hva, len) = (region.as_ptr() as u64, region.len());
        let source = |kind| Source { kind, len, found: 0..0 };
        match (region.file_offset(), &self.pagemap) {
            (Some(file), _) if !mapping::is_copy_on_write(region) => {
                vec![source(Kind::File(file, None))]
            }
            (_, None) => vec![source(Kind::Anything)],
            (None, Some(pagemap)) => vec![source(Kind::Held(HeldPages::of(pagemap, hva, len)))],
            // A page that nobody has touched has the file's contents, unless anonymous memory has replaced it.
            (Some(file), Some(pagemap)) => {
                let discarded =
                    self.discarded.as_ref().map(|discarded| (&**discarded, region.start_addr().0));
                vec![
                    source(Kind::Held(HeldPages::of(pagemap, hva, len))),
                    source(Kind::File(file, discarded)),
                ]
            }
        }
    }
}

/// Something that knows where the contents of a region can be. Offsets are relative to the region.
struct Source<'a> {
    kind: Kind<'a>,
    len: u64,
    /// What was found last, because another source may have been nearer.
    found: Range<u64>,
}

enum Kind<'a> {
    /// Anywhere.
    Anything,
    /// In the pages that the host holds.
    Held(HeldPages<'a>),
    /// Where the file has data, but for what has been discarded of the region, which starts at this address.
    File(&'a FileOffset, Option<(&'a Mutex<Discarded>, u64)>),
}

impl Source<'_> {
    /// The first part at or after `from`, empty at the end of the region if there is none.
    fn next(&mut self, from: u64) -> Range<u64> {
        if self.found.end <= from && from < self.len {
            // What the host doesn't tell may be anything.
            self.found = self.find(from).unwrap_or(from..self.len);
        }
        self.found.start.max(from)..self.found.end.max(from)
    }

    fn find(&mut self, from: u64) -> io::Result<Range<u64>> {
        match &mut self.kind {
            Kind::Anything => Ok(from..self.len),
            Kind::Held(pages) => pages.next(from),
            Kind::File(file, None) => data(file, from, self.len),
            Kind::File(file, Some((discarded, gpa))) => {
                let mut at = from;
                loop {
                    let data = data(file, at, self.len)?;
                    let discarded = discarded.lock().expect(NO_PANIC);
                    let kept = discarded.first_kept(*gpa + data.start..*gpa + data.end);
                    drop(discarded);
                    if !kept.is_empty() || data.is_empty() {
                        return Ok(kept.start - *gpa..kept.end - *gpa);
                    }
                    at = data.end;
                }
            }
        }
    }
}

/// The first pages with data at or after offset `from` of a mapping of `len` bytes of `file`; empty, at the end of the mapping, if there are
/// none. It moves the file's position.
pub(crate) fn data(file: &FileOffset, from: u64, len: u64) -> io::Result<Range<u64>> {
    let (first, end) = (file.start(), file.start() + len);
    let data = match seek(file.file(), SeekFrom::Data(first + from)) {
        Ok(data) => data.min(end),
        // Nothing but a hole is left.
        Err(Errno::NXIO) => end,
        Err(error) => return Err(error.into()),
    };
    if data == end {
        return Ok(len..len);
    }
    let hole = seek(file.file(), SeekFrom::Hole(data))?.min(end);
    // A file system's blocks may be smaller than pages.
    Ok((data - first) / PAGE_LEN * PAGE_LEN..(hole - first).next_multiple_of(PAGE_LEN))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::{Backing, FileRange, Loading, Pagemap};

    fn populated(ram: &GuestRam) -> Vec<Range<u64>> {
        // Neighbours are one range: how they are cut isn't promised.
        ram.populated().fold(Vec::new(), |mut ranges: Vec<Range<u64>>, range| {
            match ranges.last_mut().filter(|last| last.end == range.start) {
                Some(last) => last.end = range.end,
                None => ranges.push(range),
            }
            ranges
        })
    }

    fn write(ram: &GuestRam, gpa: u64) {
        ram.memory().write_obj(7_u8, GuestAddress(gpa)).unwrap();
    }

    fn with_pagemap(ranges: &[Range<u64>]) -> GuestRam {
        GuestRam::new(ranges).unwrap().with_pagemap(Pagemap::open().unwrap())
    }

    /// Less than 2 MiB each, so that the kernel populates no huge pages.
    #[test]
    fn private_ram_is_populated_where_it_was_touched() {
        let ram = with_pagemap(&[0..0x10_0000, 0x10_0000..0x18_0000, 0x1_0000_0000..0x1_0010_0000]);
        assert_eq!(populated(&ram), []);
        [0x3fff, 0x4000, 0xf_ffff, 0x10_0000, 0x1_0008_0000].into_iter().for_each(|gpa| write(&ram, gpa));
        let expected = [0x3000..0x5000, 0xf_f000..0x10_1000, 0x1_0008_0000..0x1_0008_1000];
        assert_eq!(populated(&ram), expected);
        assert!(ram.populated().all(|range| range.end <= 0x10_0000 || 0x10_0000 <= range.start));
    }

    /// Beyond the entries that are read at a time.
    #[test]
    fn private_ram_is_populated_far_from_its_start() {
        let ram = with_pagemap(&[0..1 << 32]);
        write(&ram, 0xc000_0000);
        let populated = populated(&ram);
        assert!(populated.len() == 1 && populated[0].contains(&0xc000_0000), "{populated:x?}");
        assert!(populated[0].end - populated[0].start <= 2 << 20, "{populated:x?}");
    }

    #[test]
    fn private_ram_without_a_pagemap_is_all_populated() {
        let ram = GuestRam::new(&[0..0x10_0000, 0x20_0000..0x30_0000]).unwrap();
        assert_eq!(populated(&ram), [0..0x10_0000, 0x20_0000..0x30_0000]);
    }

    /// The second region begins in the middle of the file's data.
    #[test]
    fn shared_ram_is_populated_where_its_file_has_data() {
        let ram = GuestRam::with_backing(&[0..0x4000, 0x10_0000..0x10_4000], Backing::Shared).unwrap();
        assert_eq!(populated(&ram), []);
        [0x1000, 0x3000, 0x10_0000, 0x10_2000].into_iter().for_each(|gpa| write(&ram, gpa));
        let expected = [0x1000..0x2000, 0x3000..0x4000, 0x10_0000..0x10_1000, 0x10_2000..0x10_3000];
        assert_eq!(populated(&ram), expected);
        ram.discard(0x1000, 0x1000).unwrap();
        assert_eq!(populated(&ram), expected[1..]);
    }

    /// A file with data in pages 1 to 3 and 8, mapped as 16 pages at 1 MiB.
    fn copy_on_write() -> GuestRam {
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x1_0000).unwrap();
        let write = |at, len| std::os::unix::fs::FileExt::write_all_at(&file, &vec![9; len], at).unwrap();
        write(0x1000, 0x3000);
        write(0x8000, 0x1000);
        restored(file)
    }

    fn restored(file: File) -> GuestRam {
        let range = FileRange { gpa: 0x10_0000, len: 0x1_0000, offset: 0 };
        let ram =
            GuestRam::from_file(Arc::new(file), &[range], Loading::CopyOnWrite, Backing::Private).unwrap();
        ram.with_pagemap(Pagemap::open().unwrap())
    }

    #[test]
    fn copy_on_write_ram_is_populated_where_the_file_has_data_or_it_was_written() {
        let ram = copy_on_write();
        assert_eq!(populated(&ram), [0x10_1000..0x10_4000, 0x10_8000..0x10_9000]);
        [0x10_0000, 0x10_2000, 0x10_f000].into_iter().for_each(|gpa| write(&ram, gpa));
        assert_eq!(populated(&ram), [0x10_0000..0x10_4000, 0x10_8000..0x10_9000, 0x10_f000..0x11_0000]);
    }

    #[test]
    fn copy_on_write_ram_that_was_discarded_is_not_populated() {
        let ram = copy_on_write();
        write(&ram, 0x10_3000);
        ram.discard(0x10_2000, 0x7000).unwrap();
        assert_eq!(populated(&ram), [0x10_1000..0x10_2000]);
        write(&ram, 0x10_8000);
        assert_eq!(populated(&ram), [0x10_1000..0x10_2000, 0x10_8000..0x10_9000]);
    }

    #[test]
    fn copy_on_write_ram_without_a_pagemap_is_all_populated() {
        let mut ram = copy_on_write();
        ram.pagemap = None;
        assert_eq!(populated(&ram), [0x10_0000..0x11_0000]);
    }
}
