//! Errors in a config, with their position.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{flag::Flag, size::ByteSize, value_error::ValueError};

/// Why a config can't be used: the position, then the problem.
///
/// The message is complete, except for [`ConfigError::Io`], whose cause is its source.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: cannot be read", file.display())]
    Io {
        /// The path as given.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It isn't a text file.
    #[error("{}: {problem}", file.display())]
    Read {
        /// The path as given.
        file: PathBuf,
        /// What is wrong with it.
        problem: ReadProblem,
    },
    /// The text isn't JSON.
    #[error("{}:{at}: {message}", file.display())]
    Syntax {
        /// The path as given.
        file: PathBuf,
        /// Position of the error.
        at: Position,
        /// The parser's message.
        message: String,
    },
    /// A field is unknown, missing or invalid.
    #[error("{}:{} {}{message}", file.display(), Place(at), Prefix(field))]
    Field {
        /// The path as given.
        file: PathBuf,
        /// End of the offending name or value; `None` for a missing field, or several fields.
        at: Option<Position>,
        /// The JSON path, such as `boot.kernel`; empty for the document itself.
        field: String,
        /// What is wrong, and what to write instead.
        message: String,
    },
    /// The value of a flag is invalid: a usage error rather than a bad config.
    #[error("{flag}: {problem}")]
    Flag {
        /// The flag.
        flag: Flag,
        /// What is wrong, and what to write instead.
        problem: ValueError,
    },
}

impl ConfigError {
    /// `problem` with a field of the file `origin`, whose position is unknown. Without `origin`, the message
    /// says `config` in place of the file.
    pub(crate) fn field(origin: Option<&Path>, field: &str, problem: &ValueError) -> ConfigError {
        ConfigError::Field {
            file: origin.unwrap_or(Path::new("config")).to_owned(),
            at: None,
            field: field.to_owned(),
            message: problem.to_string(),
        }
    }
}

/// A position in the text, counted from 1. The column is in bytes, that of the last byte parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Prints `3:12:` between the file and the field if the position is known.
struct Place<'a>(&'a Option<Position>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |at| write!(f, "{at}:"))
    }
}

/// Prints `boot.kernel: ` before the message, unless it is about the whole document.
struct Prefix<'a>(&'a str);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

/// What is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadProblem {
    /// The file doesn't exist.
    #[error("no such file")]
    Missing,
    /// It is a directory, pipe, socket or device, described with an article.
    #[error("is {0}, specify the path of a JSON file")]
    NotAFile(&'static str),
    /// It is longer than a config may be.
    #[error("longer than {0}, the maximum for a config file")]
    TooLong(ByteSize),
    /// It isn't text; with the offset of the first invalid byte.
    #[error("not UTF-8 at byte {0}, save the file as UTF-8")]
    NotUtf8(usize),
    /// It contains only white space.
    #[error(r#"empty, write at least {{"boot": {{"kernel": "vmlinuz"}}}}"#)]
    Empty,
}
