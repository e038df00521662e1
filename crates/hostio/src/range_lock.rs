//! Open file description locks on ranges of a file (Linux, fcntl(2), F_OFD_SETLK), used as QEMU uses them on
//! images.
//!
//! They are released with the last descriptor, however the process ends; they conflict between two users in
//! one process as between two processes; they apply to the file under all its names; and they are independent
//! of flock(2). No function here blocks.

use std::fs::File;
use std::io;
use std::ops::Range;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{major, makedev};

/// Maximum length of a file.
pub const END: u64 = i64::MAX as u64;

/// First of QEMU's lock bytes for permissions in use (block/file-posix.c, RAW_LOCK_PERM_BASE), one per
/// permission.
pub const DOES: u64 = 100;
/// First of QEMU's lock bytes for permissions denied to others (RAW_LOCK_SHARED_BASE).
pub const FORBIDS: u64 = 200;
/// Permission numbers, offsets from [`DOES`] and [`FORBIDS`] (include/block/block-common.h):
/// BLK_PERM_CONSISTENT_READ.
pub const READ: u64 = 0;
/// BLK_PERM_WRITE.
pub const WRITE: u64 = 1;
/// BLK_PERM_WRITE_UNCHANGED: writing data that doesn't change the contents.
pub const WRITE_UNCHANGED: u64 = 2;
/// BLK_PERM_RESIZE.
pub const RESIZE: u64 = 3;

/// Kind of lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Conflicts with exclusive locks only. The file must be open for reading.
    Shared,
    /// Conflicts with all locks. The file must be open for writing.
    Exclusive,
}

/// A lock held by another open file description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeLock {
    /// Its kind.
    pub kind: LockKind,
    /// Its first byte.
    pub start: u64,
}

/// Locks a range until the last descriptor of the open file description is closed. Returns false if it
/// conflicts with another lock.
///
/// # Errors
/// The file isn't open in the required mode, or its file system doesn't support locks.
pub fn lock(file: &File, kind: LockKind, range: Range<u64>) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&flock(kind, &range))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Finds a lock of another open file description in a range.
///
/// # Errors
/// The file system doesn't support locks.
pub fn find(file: &File, range: Range<u64>) -> io::Result<Option<RangeLock>> {
    let mut found = flock(LockKind::Exclusive, &range);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
    let kind = match i32::from(found.l_type) {
        libc::F_UNLCK => return Ok(None),
        libc::F_WRLCK => LockKind::Exclusive,
        _ => LockKind::Shared,
    };
    Ok(Some(RangeLock { kind, start: found.l_start as u64 }))
}

/// Whether any process, including this one, has a lock in a range of the file with these device and inode
/// numbers (as in stat(2)), according to proc_locks(5). For files that can't be opened. Locks of other hosts
/// on a network file system aren't listed.
///
/// # Errors
/// /proc/locks can't be read.
pub fn is_locked(dev: u64, ino: u64, range: Range<u64>) -> io::Result<bool> {
    let list = std::fs::read_to_string("/proc/locks")?;
    Ok(list.lines().any(|line| is_lock_on(line, dev, ino, &range)))
}

/// Whether a line such as `1: OFDLCK ADVISORY  READ -1 fe:00:1234 100 103` is a lock in that range.
fn is_lock_on(line: &str, dev: u64, ino: u64, range: &Range<u64>) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "OFDLCK" | "POSIX", _, _, _, file, start, end] = words[..] else { return false };
    let mut numbers = file.split(':');
    let mut hexadecimal = || u64::from_str_radix(numbers.next()?, 16).ok();
    let (Some(major), Some(minor)) = (hexadecimal(), hexadecimal()) else { return false };
    // stat(2) reports anonymous device numbers per btrfs subvolume and for overlayfs files, so any of those
    // may match.
    let is_device = dev == makedev(major, minor) || (major, self::major(dev)) == (0, 0);
    let is_file = numbers.next().and_then(|number| number.parse().ok()) == Some(ino);
    let last = if end == "EOF" { Some(u64::MAX) } else { end.parse().ok() };
    let is_there = start.parse().is_ok_and(|start: u64| start < range.end)
        && last.is_some_and(|last: u64| last >= range.start);
    is_device && is_file && is_there
}

fn flock(kind: LockKind, range: &Range<u64>) -> libc::flock {
    let kind = match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
    };
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.start as libc::off_t,
        l_len: (range.end - range.start) as libc::off_t,
        // Must be 0 for open file description locks.
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn two() -> [File; 2] {
        let file = tempfile::NamedTempFile::new().unwrap();
        [file.reopen().unwrap(), file.reopen().unwrap()]
    }

    #[test]
    fn range_is_found_by_others_and_not_by_its_owner() {
        let [ours, other] = two();
        assert!(lock(&ours, LockKind::Shared, 100..103).unwrap());
        assert_eq!(find(&ours, 0..END).unwrap(), None);
        assert_eq!(find(&other, 0..END).unwrap(), Some(RangeLock { kind: LockKind::Shared, start: 100 }));
        assert_eq!((find(&other, 0..100).unwrap(), find(&other, 103..END).unwrap()), (None, None));
    }

    #[test]
    fn range_is_shared_or_has_one_owner() {
        let [ours, other] = two();
        assert!(lock(&ours, LockKind::Shared, 0..10).unwrap());
        assert!(lock(&other, LockKind::Shared, 5..END).unwrap());
        assert!(!lock(&other, LockKind::Exclusive, 9..10).unwrap());
        drop(ours);
        assert!(lock(&other, LockKind::Exclusive, 0..END).unwrap());
    }

    #[test]
    fn lock_is_found_by_the_files_numbers() {
        let [ours, _] = two();
        let found = ours.metadata().unwrap();
        let is_locked = |range| is_locked(found.dev(), found.ino(), range).unwrap();
        assert!(!is_locked(0..END));
        assert!(lock(&ours, LockKind::Shared, 100..103).unwrap());
        assert_eq!([0..100, 0..101, 102..200, 103..200].map(is_locked), [false, true, true, false]);
    }

    #[test]
    fn lines_of_locks_are_read() {
        let is_lock = |line| is_lock_on(line, makedev(0xfe, 1), 1234, &(100..104));
        assert!(is_lock("1: OFDLCK ADVISORY  READ -1 fe:01:1234 100 103"));
        assert!(is_lock("12: POSIX  ADVISORY  WRITE 77 fe:01:1234 0 EOF"));
        assert!(!is_lock("1: OFDLCK ADVISORY  READ -1 fe:01:1234 104 EOF"));
        assert!(!is_lock("1: OFDLCK ADVISORY  READ -1 fe:01:12345 100 103"));
        assert!(!is_lock("1: OFDLCK ADVISORY  READ -1 fe:02:1234 100 103"));
        // A flock(2) lock, and a waiting lock.
        assert!(!is_lock("1: FLOCK  ADVISORY  WRITE 77 fe:01:1234 0 EOF"));
        assert!(!is_lock("1: -> POSIX  ADVISORY  WRITE 77 fe:01:1234 0 EOF"));
    }

    /// A subvolume's device number differs from its file system's.
    #[test]
    fn locks_of_file_systems_without_a_device_are_found_by_the_file_alone() {
        let is_lock =
            |dev| is_lock_on("1: OFDLCK ADVISORY  READ -1 00:1f:1234 100 103", dev, 1234, &(100..104));
        assert!(is_lock(makedev(0, 0x2a)));
        assert!(!is_lock(makedev(8, 0x1f)));
    }
}
