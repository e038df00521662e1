//! What can be done with a file.

/// What is done with a file.
#[derive(Clone, Copy, Debug)]
pub enum IoRequest<B> {
    /// Fill these bytes.
    Read(B),
    /// Write these bytes, to be complete as that says.
    Write(B, Durable),
    /// Bring to stable storage what was written (fdatasync(2)).
    Sync,
    /// Give up the room of so many bytes. Where the file can't, nothing happens.
    Punch(u64),
    /// Let so many bytes read as zeros; `unmap`: their room may be given up.
    Zero {
        /// How many.
        len: u64,
        /// Whether their room may be given up.
        unmap: bool,
        /// When it is complete.
        durable: Durable,
    },
}

/// When a change of a file is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// When the host has it.
    No,
    /// When it is on stable storage.
    Yes,
}
