//! Copies the file of a disk into a snapshot.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
use rustix::io::Errno;

/// Bytes copied at a time.
const CHUNK_LEN: u64 = 1 << 20;

/// What reads of a file that bypasses the page cache (O_DIRECT) must be a multiple of, in memory and in the file.
const ALIGNMENT: u64 = 4096;

/// A disk that was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopiedDisk {
    /// In bytes.
    pub(crate) len: u64,
    /// The modification time of the original in nanoseconds since 1970, if it is a regular file. The copy needs it, because the
    /// disk's state has it; only the owner of the copy can set it.
    pub(crate) modified_ns: Option<i64>,
}

/// Copies `from`, which nobody may change meanwhile, to the empty file `to`. Returns when the host's storage has it.
/// Shares the data where the file system can (FICLONE in ioctl_ficlonerange(2)); otherwise holes stay holes.
///
/// It makes the system calls ioctl with FICLONE, lseek, ftruncate, pread64, pwrite64, statx and fsync.
///
/// # Errors
/// The host can't read or write, or `cancelled`, which is asked once for each MiB.
pub(crate) fn copy_disk(from: &File, to: &File, cancelled: impl Fn() -> bool) -> io::Result<CopiedDisk> {
    // Also that of a block device.
    let len = seek(from, SeekFrom::End(0))?;
    // Whatever the reason, such as two file systems: copying fails of the same if it matters.
    if ioctl_ficlone(to, from).is_err() {
        to.set_len(len)?;
        copy_data(from, to, len, cancelled)?;
    }
    to.sync_all()?;
    let found = from.metadata()?;
    let modified_ns =
        found.mtime().checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(found.mtime_nsec()));
    Ok(CopiedDisk { len, modified_ns: modified_ns.filter(|_| found.is_file()) })
}

fn copy_data(from: &File, to: &File, len: u64, cancelled: impl Fn() -> bool) -> io::Result<()> {
    let mut buffer = vec![0; (CHUNK_LEN + ALIGNMENT) as usize];
    let aligned = buffer.as_ptr().align_offset(ALIGNMENT as usize);
    let buffer = &mut buffer[aligned..][..CHUNK_LEN as usize];
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, len)? {
        at = start;
        while at < end {
            if cancelled() {
                return Err(ErrorKind::Interrupted.into());
            }
            let chunk_len = CHUNK_LEN.min(end - at);
            // More than that is read only at the end of the data.
            let read = &mut buffer[..chunk_len.next_multiple_of(ALIGNMENT) as usize];
            read_at_least(from, read, chunk_len as usize, at)?;
            to.write_all_at(&buffer[..chunk_len as usize], at)?;
            at += chunk_len;
        }
    }
    Ok(())
}

/// Reads `needed` bytes or more.
fn read_at_least(file: &File, into: &mut [u8], needed: usize, at: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < needed {
        match file.read_at(&mut into[filled..], at + filled as u64) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => filled += len,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where the next data of the first `len` bytes starts and ends, from `at`.
fn next_data(file: &File, at: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A block device, or a file system without holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at < len).then_some((at, len))),
        Err(errno) => return Err(errno.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?.min(len);
    Ok((start < end).then_some((start, end)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// 8 MiB, with data in the first and in the sixth.
    fn sparse() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * MIB + 512).unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.write_all_at(&vec![2; MIB as usize + 512], 5 * MIB + 4096).unwrap();
        file
    }

    fn bytes(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn copy_has_the_same_data_and_holes() {
        let (from, to) = (sparse(), tempfile::tempfile().unwrap());
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_709_210_000, 500_000_001);
        from.set_modified(time).unwrap();
        let copied = CopiedDisk { len: 8 * MIB + 512, modified_ns: Some(1_709_210_000_500_000_001) };
        assert_eq!(copy_disk(&from, &to, || false).unwrap(), copied);
        assert!(bytes(&from) == bytes(&to));
        assert!(to.metadata().unwrap().blocks() * 512 < 2 * MIB, "it is sparse");
    }

    #[test]
    fn data_is_copied_where_it_cant_be_shared() {
        let (from, to) = (sparse(), tempfile::tempfile().unwrap());
        to.set_len(8 * MIB + 512).unwrap();
        copy_data(&from, &to, 8 * MIB + 512, || false).unwrap();
        assert!(bytes(&from) == bytes(&to));
        assert!(to.metadata().unwrap().blocks() * 512 < 2 * MIB, "it is sparse");
    }

    #[test]
    fn copy_that_is_cancelled_fails() {
        let (from, to) = (sparse(), tempfile::tempfile().unwrap());
        let error = copy_data(&from, &to, 8 * MIB, || true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn disk_without_data_is_a_hole() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(MIB).unwrap();
        assert_eq!(copy_disk(&from, &to, || false).unwrap().len, MIB);
        assert_eq!(to.metadata().unwrap().len(), MIB);
    }
}
