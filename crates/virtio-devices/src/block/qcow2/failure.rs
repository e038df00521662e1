//! Whether a change of an image has been lost.
//!
//! imago enters a new table into the L1 or the refcount table before it writes that entry, and doesn't write it
//! again if this has failed. After a failed sync, the kernel may have dropped what it couldn't write, and the next
//! sync succeeds. So after a failed write of a table or a failed sync, what the guest writes could be lost although
//! each flush succeeds: nothing is written any more, and the image stays marked dirty. A failed write of data, or of
//! a table to which nothing refers yet, as on a full disk, loses only itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by an image and its [`View`](super::storage::View), all used by one thread.
#[derive(Clone, Debug, Default)]
pub(super) struct ImageFailure(Arc<AtomicBool>);

impl ImageFailure {
    /// Must precede each change and each sync.
    ///
    /// # Errors
    /// An earlier one failed.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.has_happened() {
            true => Err(io::Error::other("an earlier change of the image failed")),
            false => Ok(()),
        }
    }

    /// Returns `result` of a change of a table, or of a sync, and notes an error.
    pub(super) fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.0.store(true, Ordering::Relaxed);
        }
        result
    }

    pub(super) fn has_happened(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
