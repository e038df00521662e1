//! Which pages of this process the host holds.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::PAGE_LEN;

/// Bytes of a page's entry (Linux, Documentation/admin-guide/mm/pagemap.rst).
const ENTRY_LEN: usize = 8;
/// Entries read at a time: those of 2 MiB.
const ENTRIES: usize = 512;

/// Which pages of this process the host holds, in memory or swapped out: /proc/self/pagemap, open. A process that is confined later
/// opens it before.
///
/// Reading it is pread64. Of a page it tells nothing else, but to a process that has opened it with CAP_SYS_ADMIN also its physical address.
#[derive(Clone, Debug)]
pub struct Pagemap(Arc<File>);

impl Pagemap {
    /// Opens it.
    ///
    /// # Errors
    /// /proc isn't mounted, or the host is out of descriptors.
    pub fn open() -> io::Result<Self> {
        Ok(Self(Arc::new(File::open("/proc/self/pagemap")?)))
    }
}

/// Finds the pages of a mapping that the host holds.
#[derive(Debug)]
pub(crate) struct HeldPages<'a> {
    pagemap: &'a Pagemap,
    /// Number of the mapping's first page in the process.
    first: u64,
    /// Pages of the mapping.
    count: u64,
    /// Whether the host holds each page of this part of the mapping.
    read: Range<u64>,
    is_held: Box<[bool; ENTRIES]>,
}

impl<'a> HeldPages<'a> {
    /// Those of `len` bytes at `hva`.
    pub(crate) fn of(pagemap: &'a Pagemap, hva: u64, len: u64) -> Self {
        let (first, count) = (hva / PAGE_LEN, len / PAGE_LEN);
        Self { pagemap, first, count, read: 0..0, is_held: Box::new([false; ENTRIES]) }
    }

    /// The first bytes at or after offset `from` that the host holds, as offsets into the mapping, and perhaps only a part of them; empty,
    /// at the end of the mapping, if there are none.
    ///
    /// # Errors
    /// The pagemap can't be read.
    pub(crate) fn next(&mut self, from: u64) -> io::Result<Range<u64>> {
        let mut page = from / PAGE_LEN;
        while page < self.count {
            if !self.read.contains(&page) {
                self.read_at(page)?;
            }
            let rest = &self.is_held[(page - self.read.start) as usize..][..(self.read.end - page) as usize];
            if let Some(start) = rest.iter().position(|held| *held) {
                let len = rest[start..].iter().take_while(|held| **held).count();
                let start = page + start as u64;
                return Ok(start * PAGE_LEN..(start + len as u64) * PAGE_LEN);
            }
            page = self.read.end;
        }
        Ok(self.count * PAGE_LEN..self.count * PAGE_LEN)
    }

    fn read_at(&mut self, page: u64) -> io::Result<()> {
        let mut bytes = [0; ENTRIES * ENTRY_LEN];
        let count = (self.count - page).min(ENTRIES as u64);
        let bytes = &mut bytes[..count as usize * ENTRY_LEN];
        self.read = 0..0;
        self.pagemap.0.read_exact_at(bytes, (self.first + page) * ENTRY_LEN as u64)?;
        for (held, entry) in self.is_held.iter_mut().zip(bytes.as_chunks::<ENTRY_LEN>().0) {
            // Bit 63 is "page present", bit 62 "page swapped".
            *held = u64::from_ne_bytes(*entry) >> 62 != 0;
        }
        self.read = page..page + count;
        Ok(())
    }
}
