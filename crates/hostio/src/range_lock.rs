//! Locks on ranges of a file that belong to an open file description (Linux, fcntl(2), F_OFD_SETLK), as QEMU takes them on images.
//!
//! They end with the last descriptor, however the process ends, tell two users in one process apart as they do two processes,
//! find a file by any of its names, and have nothing to do with those of flock(2). None of these functions waits.

use std::fs::File;
use std::io;
use std::ops::Range;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// No file is longer.
pub const END: u64 = i64::MAX as u64;

/// Where QEMU's bytes start that say what somebody does with an image (block/file-posix.c, RAW_LOCK_PERM_BASE): one for each
/// permission.
pub const DOES: u64 = 100;
/// Where those start that say what nobody else may do (RAW_LOCK_SHARED_BASE).
pub const FORBIDS: u64 = 200;
/// The byte of a permission counts from [`DOES`] or [`FORBIDS`] (include/block/block-common.h, BLK_PERM_CONSISTENT_READ).
pub const READ: u64 = 0;
/// BLK_PERM_WRITE.
pub const WRITE: u64 = 1;
/// BLK_PERM_WRITE_UNCHANGED: writing what is there already.
pub const WRITE_UNCHANGED: u64 = 2;
/// BLK_PERM_RESIZE.
pub const RESIZE: u64 = 3;

/// Who else may have a lock on the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Others of this kind. The file is open for reading.
    Shared,
    /// Nobody. The file is open for writing.
    Exclusive,
}

/// A lock of another open file description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeLock {
    /// Its kind.
    pub kind: LockKind,
    /// Its first byte.
    pub start: u64,
}

/// Locks a range until the last descriptor of the open file description is closed. False: somebody else has a lock there.
///
/// # Errors
/// The file isn't open for that, or its file system has no locks.
pub fn lock(file: &File, kind: LockKind, range: Range<u64>) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&flock(kind, &range))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A lock that somebody else has in a range, if there is any.
///
/// # Errors
/// The file system has no locks.
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
        // Required of a lock of an open file description.
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
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
}
