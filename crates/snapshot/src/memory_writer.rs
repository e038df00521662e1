//! Writes guest memory to a sparse file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::Error;
use crate::file_names::MEMORY;
use crate::memory_layout::{MemoryLayout, PAGE_LEN};

static ZEROS: [u8; PAGE_LEN as usize] = [0; PAGE_LEN as usize];

/// Writes guest memory to a sparse file: pages of zeros stay holes. Several threads can share it.
///
/// It makes the system calls pwrite64 and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct MemoryWriter<'a> {
    file: &'a File,
    layout: &'a MemoryLayout,
}

impl<'a> MemoryWriter<'a> {
    /// Writes to `file`, which has the layout's length and no data.
    pub(crate) fn new(file: &'a File, layout: &'a MemoryLayout) -> Self {
        Self { file, layout }
    }

    /// Writes pages at their offset of the file. Each page may be written once: zeros don't replace what is there. Returns the number of
    /// bytes that aren't pages of zeros.
    ///
    /// # Errors
    /// These aren't whole pages of one region, or the host can't write them: its disk is full, for example.
    pub fn write(&self, offset: u64, pages: &[u8]) -> Result<u64, Error> {
        let len = pages.len() as u64;
        if !self.layout.has(offset, len) {
            return Err(Error::NotMemory { offset, len });
        }
        let (mut start, mut stored) = (0, 0);
        while start < pages.len() {
            start += leading(&pages[start..], true);
            let data = leading(&pages[start..], false);
            let run = &pages[start..start + data];
            self.file.write_all_at(run, offset + start as u64).map_err(Error::io(MEMORY))?;
            start += data;
            stored += data as u64;
        }
        Ok(stored)
    }
}

/// How many bytes of whole pages, from the first one on, are zero, or aren't.
fn leading(pages: &[u8], are_zero: bool) -> usize {
    // The comparison is a memcmp, which stops at the first difference.
    let is_so = |page: &&[u8]| (**page == ZEROS[..page.len()]) == are_zero;
    pages.chunks(ZEROS.len()).take_while(is_so).map(<[u8]>::len).sum()
}
