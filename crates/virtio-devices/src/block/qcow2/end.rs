//! Where a file of an image ends, which may change while the image is in use: the host resizes a block device, or
//! truncates a file. imago asks only once.
//!
//! | | imago | here |
//! |---|---|---|
//! | zeros beyond the end of a block device, also of one that has grown | ftruncate(2), EINVAL | ENOSPC, or zeros where it now has room |
//! | a read of what the file no longer has | zeros: a missing table is one without entries, and the backing file's old data shows | an error |
//! | a write there | makes the file longer again, with zeros for what was lost | an error |

use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// The end of a file.
#[derive(Debug)]
pub(super) struct FileEnd {
    file: Arc<File>,
    is_device: bool,
    opened_len: u64,
}

impl FileEnd {
    /// For a file that had `opened_len` bytes when the disk was opened.
    pub(super) fn new(file: Arc<File>, opened_len: u64) -> io::Result<Self> {
        let is_device = file.metadata()?.file_type().is_block_device();
        Ok(Self { file, is_device, opened_len })
    }

    /// Its length in bytes when the disk was opened.
    pub(super) fn opened_len(&self) -> u64 {
        self.opened_len
    }

    /// Whether it is a block device, whose length can't be set.
    pub(super) fn is_device(&self) -> bool {
        self.is_device
    }

    /// Must follow a read, and precede a write, of bytes up to `end` of a file that has had `known_len` bytes.
    ///
    /// # Errors
    /// Some of those are gone.
    pub(super) fn check(&self, end: u64, known_len: u64) -> io::Result<()> {
        if end.min(known_len) > self.len()? {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the file has become shorter"));
        }
        Ok(())
    }

    /// Zeros a range of a block device. Its end is asked for each time: beyond the old one there may be anything.
    ///
    /// # Errors
    /// `StorageFull` if the device ends before the range, `Unsupported` if zeros must be written.
    pub(super) fn zero_device(&self, offset: u64, len: u64) -> io::Result<()> {
        // The kernel would zero the part before the end, and succeed.
        if offset.checked_add(len).is_none_or(|end| self.len().is_ok_and(|device| end > device)) {
            return Err(Errno::NOSPC.into());
        }
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::io::retry_on_intr(|| fallocate(&*self.file, mode, offset, len)) {
            Err(Errno::OPNOTSUPP) => Err(ErrorKind::Unsupported.into()),
            other => Ok(other?),
        }
    }

    fn len(&self) -> io::Result<u64> {
        (&*self.file).seek(SeekFrom::End(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of 100 bytes that had 200.
    fn check_of_100(end: u64) -> Result<(), ErrorKind> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100).unwrap();
        let end_of_file = FileEnd::new(Arc::new(file), 200).unwrap();
        end_of_file.check(end, 200).map_err(|error| error.kind())
    }

    #[test]
    fn access_to_what_a_file_has_lost_fails() {
        assert_eq!(check_of_100(100), Ok(()));
        assert_eq!(check_of_100(101), Err(ErrorKind::UnexpectedEof));
        assert_eq!(check_of_100(300), Err(ErrorKind::UnexpectedEof));
    }

    /// The last cluster of an image may be incomplete.
    #[test]
    fn access_beyond_what_a_file_ever_had_succeeds() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100).unwrap();
        FileEnd::new(Arc::new(file), 100).unwrap().check(300, 100).unwrap();
    }
}
