//! I/O requests.

/// An operation on a file.
#[derive(Clone, Copy, Debug)]
pub enum IoRequest<B> {
    /// Reads into these bytes.
    Read(B),
    /// Writes these bytes.
    Write(B, Durable),
    /// Flushes earlier writes to stable storage (fdatasync(2)).
    Sync,
    /// Deallocates this many bytes. Does nothing if the file doesn't support it.
    Punch(u64),
    /// Zeroes a range.
    Zero {
        /// Length in bytes.
        len: u64,
        /// Whether the range may be deallocated.
        unmap: bool,
        /// When the request is complete.
        durable: Durable,
    },
}

/// When a modification of a file is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// When the host kernel has it.
    No,
    /// When it is on stable storage.
    Yes,
}
