//! Files mapped into guest-physical memory.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion};

use crate::{PAGE_LEN, Region, mapping};

/// Guest access to a [`FileMemory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only.
    Read,
    /// Loads and stores. Stores reach the file.
    ReadWrite,
}

/// Errors from [`FileMemory::new`].
#[derive(Debug, thiserror::Error)]
pub enum FileMemoryError {
    /// The range isn't page-aligned, is empty, or exceeds the 64-bit address space.
    #[error("file mapping of {len:#x} bytes at {gpa:#x} isn't made of whole 4 KiB pages")]
    NotPages {
        /// Guest-physical address.
        gpa: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The file is shorter than the mapping.
    #[error("can't map {len} bytes of a file that has {file_len}")]
    Short {
        /// Requested length in bytes.
        len: u64,
        /// Length of the file in bytes.
        file_len: u64,
    },
    /// The file isn't open for the requested access, or mmap failed.
    #[error("can't map {len} bytes of a file")]
    Map {
        /// Requested length in bytes.
        len: u64,
        /// Error from lseek or mmap.
        source: MmapRegionError,
    },
}

/// A file mapped for guest access only.
///
/// It isn't part of [`GuestRam`](crate::GuestRam): neither devices nor the monitor access it. Truncating the
/// file therefore can't kill the monitor with SIGBUS; if the guest touches a page that is gone, KVM_RUN fails
/// with EFAULT.
///
/// Clones share the mapping, which is unmapped when the last one is dropped.
#[derive(Clone, Debug)]
pub struct FileMemory {
    mapping: Arc<MmapRegion>,
    gpa: u64,
    access: Access,
}

impl FileMemory {
    /// Maps the first `len` bytes of `file` at guest-physical address `gpa`. Guest stores go to the file's
    /// page cache and are durable after fdatasync(2).
    ///
    /// # Errors
    /// `gpa` or `len` isn't page-aligned, `len` is 0, the file is shorter than `len`, it isn't open for
    /// `access`, or mmap fails.
    pub fn new(file: File, len: u64, gpa: u64, access: Access) -> Result<Self, FileMemoryError> {
        let is_whole = gpa.is_multiple_of(PAGE_LEN) && len.is_multiple_of(PAGE_LEN) && len > 0;
        let size = usize::try_from(len).ok().filter(|_| is_whole && gpa.checked_add(len).is_some());
        let size = size.ok_or(FileMemoryError::NotPages { gpa, len })?;
        // Seek to get the length: unlike fstat, this works for block devices. mmap itself accepts any length.
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

    /// The region for the KVM memory slot.
    pub fn region(&self) -> Region {
        Region { gpa: self.gpa, len: self.mapping.size() as u64, hva: self.mapping.as_ptr() as u64 }
    }

    /// What the guest may do with the mapping.
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
        assert_eq!(error.to_string(), "can't map 8192 bytes of a file that has 4096");
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
