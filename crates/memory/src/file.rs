//! A file that the guest sees as memory.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion};

use crate::{PAGE_LEN, Region, mapping};

/// What the guest may do with a [`FileMemory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It loads.
    Read,
    /// It loads and stores, and its stores reach the file.
    ReadWrite,
}

/// Why a file can't be memory of the guest.
#[derive(Debug, thiserror::Error)]
pub enum FileMemoryError {
    /// It isn't whole pages, or ends behind the last address.
    #[error("{len:#x} bytes of a file at {gpa:#x} aren't whole 4 KiB pages")]
    NotPages {
        /// Guest-physical address.
        gpa: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The file is shorter.
    #[error("a file of {file_len} bytes where {len} are to be mapped")]
    Short {
        /// Length asked for, in bytes.
        len: u64,
        /// What there is, in bytes.
        file_len: u64,
    },
    /// The file isn't open for that access, or can't be mapped.
    #[error("{len} bytes of a file can't be mapped")]
    Map {
        /// Length asked for, in bytes.
        len: u64,
        /// What is wrong.
        source: MmapRegionError,
    },
}

/// A file mapped for the guest. It isn't a part of [`GuestRam`](crate::GuestRam): no device reads or writes it, and neither
/// does the monitor. So a file that somebody shortens can't hurt the monitor with SIGBUS; a guest that touches what is gone
/// makes KVM_RUN fail with EFAULT.
///
/// Clones are the same mapping; it is unmapped with the last one.
#[derive(Clone, Debug)]
pub struct FileMemory {
    mapping: Arc<MmapRegion>,
    gpa: u64,
    access: Access,
}

impl FileMemory {
    /// Maps the first `len` bytes of `file`, for the guest to see at `gpa`. What the guest stores is in the file's page
    /// cache; it is on stable storage after fdatasync(2).
    ///
    /// # Errors
    /// `gpa` and `len` aren't whole pages; the file is shorter, isn't open for `access`, or can't be mapped.
    pub fn new(file: File, len: u64, gpa: u64, access: Access) -> Result<Self, FileMemoryError> {
        let is_whole = gpa.is_multiple_of(PAGE_LEN) && len.is_multiple_of(PAGE_LEN) && len > 0;
        let size = usize::try_from(len).ok().filter(|_| is_whole && gpa.checked_add(len).is_some());
        let size = size.ok_or(FileMemoryError::NotPages { gpa, len })?;
        // Of a block device too. mmap itself would take any length.
        let file_len = (&file).seek(SeekFrom::End(0));
        let file_len =
            file_len.map_err(|error| FileMemoryError::Map { len, source: MmapRegionError::Mmap(error) })?;
        if file_len < len {
            return Err(FileMemoryError::Short { len, file_len });
        }
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        let mapping = mapping::map_file(&FileOffset::new(file, 0), size, protection)
            .map_err(|source| FileMemoryError::Map { len, source })?;
        Ok(Self { mapping: Arc::new(mapping), gpa, access })
    }

    /// What its memory slot needs.
    pub fn region(&self) -> Region {
        Region { gpa: self.gpa, len: self.mapping.size() as u64, hva: self.mapping.as_ptr() as u64 }
    }

    /// What the guest may do with it.
    pub fn access(&self) -> Access {
        self.access
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use vm_memory::VolatileMemory;

    use super::*;

    fn file(len: u64) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file.write_all(b"first").unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn file_memory_is_the_file_both_ways() {
        let file = file(0x2000);
        let memory =
            FileMemory::new(file.try_clone().unwrap(), 0x2000, 0x1_0000_0000, Access::ReadWrite).unwrap();
        assert_eq!((memory.region().gpa, memory.region().len), (0x1_0000_0000, 0x2000));
        let mut bytes = [0; 5];
        memory.mapping.get_slice(0, 5).unwrap().copy_to(&mut bytes);
        assert_eq!(&bytes, b"first");
        memory.mapping.get_slice(0x1ffb, 5).unwrap().copy_from(b"after");
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0x1ffb).unwrap();
        assert_eq!(&bytes, b"after");
    }

    #[test]
    fn file_memory_of_two_mib_starts_where_a_huge_page_can() {
        let memory = FileMemory::new(file(4 << 20), 4 << 20, 0, Access::ReadWrite).unwrap();
        assert_eq!(memory.region().hva % (2 << 20), 0);
    }

    #[test]
    fn file_memory_longer_than_its_file_is_refused() {
        let error = FileMemory::new(file(0x1000), 0x2000, 0, Access::Read).unwrap_err();
        assert_eq!(error.to_string(), "a file of 4096 bytes where 8192 are to be mapped");
    }

    #[test]
    fn file_memory_to_write_of_a_file_open_for_reading_is_refused() {
        let named = tempfile::NamedTempFile::new().unwrap();
        named.as_file().set_len(0x1000).unwrap();
        let read_only = || File::open(named.path()).unwrap();
        assert!(matches!(
            FileMemory::new(read_only(), 0x1000, 0, Access::ReadWrite),
            Err(FileMemoryError::Map { .. })
        ));
        assert_eq!(FileMemory::new(read_only(), 0x1000, 0, Access::Read).unwrap().access(), Access::Read);
    }

    #[test]
    fn file_memory_of_no_whole_pages_is_refused() {
        let refused = |len, gpa| {
            matches!(
                FileMemory::new(file(0x2000), len, gpa, Access::Read),
                Err(FileMemoryError::NotPages { .. })
            )
        };
        assert!(refused(0, 0) && refused(0x1800, 0) && refused(0x1000, 0x800) && refused(0x2000, !0xfff));
    }
}
