//! A failed flush is the last one: all later ones fail, until the file is opened again.
//!
//! Linux reports an error of writing back its page cache once, and may then regard the pages as clean (Linux
//! Documentation/filesystems/vfs.rst, "Handling errors during writeback"). So the next fdatasync(2) succeeds although
//! data is lost that the guest was told is written, and won't write again. QEMU's flushes fail from then on, too
//! (block/file-posix.c, `handle_aiocb_flush`).
//!
//! A reset of the device changes nothing: the next driver reads the lost data from the page cache, builds on it, and
//! its flushes would succeed. Nor does O_DIRECT: requests that aren't aligned for it use the page cache.
//!
//! Any error counts, also EAGAIN: a FUSE server's answer to the write of a page, say, is reported like EIO. Only EINTR isn't
//! one: a signal has ended the wait, and the call is repeated.
//!
//! A write that completes only on stable storage is also a flush. The stores to persistent memory are writes to the
//! page cache.

use std::io::{self, ErrorKind};

/// What the failure of a device's storage means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StorageFailure {
    /// The guest's requests that fail.
    pub(crate) failing: &'static str,
    /// What to do when the monitor has ended.
    pub(crate) remedy: String,
}

impl StorageFailure {
    /// For the log, when it happens.
    pub(crate) fn notice(&self) -> String {
        let Self { failing, remedy } = self;
        format!(
            "what the guest has written since its last flush may be lost: {failing} fail until the monitor ends; then {remedy}"
        )
    }

    /// For the end.
    pub(crate) fn loss(&self) -> String {
        format!("what the guest wrote since its last flush may be lost: {}", self.remedy)
    }
}

/// Whether a flush of a file has failed.
#[derive(Debug, Default)]
pub(crate) struct FlushState {
    has_failed: bool,
}

impl FlushState {
    /// Must precede a request that completes on stable storage.
    ///
    /// # Errors
    /// One has failed.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.has_failed { Err(ErrorKind::Other.into()) } else { Ok(()) }
    }

    /// Returns the result of a flush: an error also if another request has failed while it was in flight.
    pub(crate) fn note_flush(&mut self, result: io::Result<()>) -> io::Result<()> {
        self.has_failed |= result.is_err();
        result.and_then(|()| self.check())
    }

    /// The same for a write that completes on stable storage.
    pub(crate) fn note_write(&mut self, result: io::Result<()>) -> io::Result<()> {
        self.has_failed |= result.as_ref().is_err_and(|error| !is_refusal(error));
        result.and_then(|()| self.check())
    }
}

/// Whether a write wasn't begun, because the file has no room, may not be written, or doesn't support the
/// request. Nothing else is affected then.
fn is_refusal(error: &io::Error) -> bool {
    use ErrorKind::{FileTooLarge, InvalidInput, PermissionDenied, QuotaExceeded, StorageFull, Unsupported};
    matches!(
        error.kind(),
        StorageFull | QuotaExceeded | FileTooLarge | PermissionDenied | InvalidInput | Unsupported
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The results of a write after a request that failed, and whether a third may be tried.
    fn after(
        error: impl Into<io::Error>,
        note: fn(&mut FlushState, io::Result<()>) -> io::Result<()>,
    ) -> (bool, bool) {
        let mut flushes = FlushState::default();
        let error = error.into();
        let kind = error.kind();
        assert_eq!(note(&mut flushes, Err(error)).unwrap_err().kind(), kind);
        (flushes.note_write(Ok(())).is_ok(), flushes.check().is_ok())
    }

    #[test]
    fn failed_flush_is_the_last_whatever_its_error() {
        assert_eq!(after(ErrorKind::Other, FlushState::note_flush), (false, false));
        assert_eq!(after(ErrorKind::StorageFull, FlushState::note_flush), (false, false));
        assert_eq!(after(ErrorKind::WouldBlock, FlushState::note_flush), (false, false));
    }

    #[test]
    fn write_without_room_concerns_only_itself() {
        assert_eq!(after(ErrorKind::StorageFull, FlushState::note_write), (true, true));
        assert_eq!(after(ErrorKind::QuotaExceeded, FlushState::note_write), (true, true));
    }

    #[test]
    fn write_that_the_kernel_refuses_concerns_only_itself() {
        use nix::errno::Errno::{EDQUOT, EFBIG, EINVAL, ENOSPC, EOPNOTSUPP, EPERM};
        for errno in [EINVAL, EOPNOTSUPP, ENOSPC, EDQUOT, EFBIG, EPERM] {
            assert_eq!(after(errno, FlushState::note_write), (true, true), "{errno}");
            assert_eq!(after(errno, FlushState::note_flush), (false, false), "{errno}");
        }
    }

    #[test]
    fn write_that_failed_on_its_way_to_stable_storage_is_the_last() {
        assert_eq!(after(ErrorKind::Other, FlushState::note_write), (false, false));
    }
}
