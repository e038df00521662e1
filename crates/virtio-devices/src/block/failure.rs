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
//! A write that completes only on stable storage is also a flush.

use std::io::{self, ErrorKind};

use super::errors::Operation;

/// What a disk whose host has failed needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DiskFailure {
    /// The guest's requests that fail.
    pub(super) failing: &'static str,
    /// What to do when the monitor has ended.
    pub(super) remedy: String,
}

impl DiskFailure {
    /// For the log, when it happens.
    pub(super) fn notice(&self) -> String {
        let Self { failing, remedy } = self;
        format!(
            "what the guest has written since its last flush may be lost: {failing} fail until the monitor ends; then {remedy}"
        )
    }

    /// For the end.
    pub(super) fn loss(&self) -> String {
        format!("what the guest wrote since its last flush may be lost: {}", self.remedy)
    }
}

/// Whether a flush of a raw disk has failed.
#[derive(Debug, Default)]
pub(super) struct FlushState {
    has_failed: bool,
}

impl FlushState {
    /// Must precede a request that completes on stable storage.
    ///
    /// # Errors
    /// One has failed.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.has_failed { Err(ErrorKind::Other.into()) } else { Ok(()) }
    }

    /// Returns the result of such a request: an error also if another has failed while it was in flight.
    pub(super) fn note(&mut self, operation: Operation, result: io::Result<()>) -> io::Result<()> {
        match result {
            Ok(()) => self.check(),
            Err(error) => {
                self.has_failed |= operation == Operation::FLUSH || !is_refusal(&error);
                Err(error)
            }
        }
    }
}

/// Whether a write wasn't begun, because the file has no room or may not be written. Nothing else is affected
/// then.
fn is_refusal(error: &io::Error) -> bool {
    use ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Operation = Operation { name: "a write", offset: Some(0) };

    /// The results of two requests, of which the first fails, and whether a third may be tried.
    fn after(operation: Operation, error: ErrorKind) -> (bool, bool) {
        let mut flushes = FlushState::default();
        assert_eq!(flushes.note(operation, Err(error.into())).unwrap_err().kind(), error);
        (flushes.note(WRITE, Ok(())).is_ok(), flushes.check().is_ok())
    }

    #[test]
    fn failed_flush_is_the_last_whatever_its_error() {
        assert_eq!(after(Operation::FLUSH, ErrorKind::Other), (false, false));
        assert_eq!(after(Operation::FLUSH, ErrorKind::StorageFull), (false, false));
    }

    #[test]
    fn write_without_room_concerns_only_itself() {
        assert_eq!(after(WRITE, ErrorKind::StorageFull), (true, true));
        assert_eq!(after(WRITE, ErrorKind::QuotaExceeded), (true, true));
    }

    #[test]
    fn write_that_failed_on_its_way_to_stable_storage_is_the_last() {
        assert_eq!(after(WRITE, ErrorKind::Other), (false, false));
    }
}
