//! Why a snapshot can't be written or read.

use std::io;
use std::path::{Path, PathBuf};

use crate::format_error::FormatError;

/// Why a snapshot can't be written or read. The place is a path, or "state", "memory" or "manifest.json" for a file that was open already.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host refuses something, or has no room.
    #[error("{place}: {source}")]
    Io {
        /// What it concerns.
        place: String,
        /// The host's error.
        source: io::Error,
    },
    /// What a file contains is refused.
    #[error("{place}: {source}")]
    Format {
        /// The file.
        place: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A snapshot is to be written where there is something.
    #[error("{}: exists already; name a new directory", .0.display())]
    Exists(PathBuf),
    /// A snapshot is to be written at a path without a name of its own.
    #[error("{}: is no name of a new directory", .0.display())]
    NoName(PathBuf),
    /// A file can't be mapped, or isn't one at all.
    #[error("{0}: is not a regular file")]
    NotRegular(String),
    /// A file that is to be written has contents.
    #[error("{0}: is not empty")]
    NotEmpty(String),
    /// A file that is to be written is open in another way.
    #[error("{0}: is not open for reading and writing, or with O_APPEND")]
    Mode(String),
    /// A snapshot is to be written to one file.
    #[error("state and memory are the same file")]
    SameFile,
    /// A file is shorter than what was saved.
    #[error("{place}: has {len} bytes, but {needed} were saved")]
    Short {
        /// The file.
        place: String,
        /// Its length.
        len: u64,
        /// The length that the manifest says.
        needed: u64,
    },
    /// Something is written that isn't whole pages of guest memory.
    #[error("memory: {len} bytes at {offset:#x} aren't pages of a region")]
    NotMemory {
        /// Where in the file.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Guest memory is to be written that the layout doesn't have.
    #[error("memory: {len} bytes at guest address {gpa:#x} aren't in the layout")]
    NotSaved {
        /// Guest-physical address.
        gpa: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Whoever asked for the snapshot doesn't want it any more.
    #[error("the snapshot was cancelled")]
    Cancelled,
    /// manifest.json isn't that of the state beside it.
    #[error("{}: manifest.json and the manifest in state differ", .0.display())]
    OtherManifest(PathBuf),
}

impl Error {
    /// What the host's error concerns.
    pub(crate) fn io(place: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let place = place.into();
        move |source| Self::Io { place, source }
    }

    /// What the host's error with a path concerns.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(path.display().to_string())
    }

    /// The file whose contents are refused.
    pub(crate) fn format(place: impl Into<String>) -> impl FnOnce(FormatError) -> Self {
        let place = place.into();
        move |source| Self::Format { place, source }
    }
}
