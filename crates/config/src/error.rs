//! What can be wrong with a config, and where.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{flag::Flag, size::ByteSize, value_error::ValueError};

/// Why a config can't be used: the place, then the problem.
///
/// The message is complete in itself, but for [`ConfigError::Io`], whose cause is its source.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The host refuses to read the file.
    #[error("{}: cannot be read", file.display())]
    Io {
        /// The file, as it was named.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no file of text.
    #[error("{}: {problem}", file.display())]
    Read {
        /// The file, as it was named.
        file: PathBuf,
        /// What is there instead.
        problem: ReadProblem,
    },
    /// The text is not JSON.
    #[error("{}:{at}: {message}", file.display())]
    Syntax {
        /// The file, as it was named.
        file: PathBuf,
        /// Where the parser stopped.
        at: Position,
        /// The parser's own words.
        message: String,
    },
    /// A field is unknown, missing, or has a value that can't be.
    #[error("{}:{} {}{message}", file.display(), Place(at), Prefix(field))]
    Field {
        /// The file, as it was named.
        file: PathBuf,
        /// Where the offending name or value ends; none if it is about a field that isn't there, or about several.
        at: Option<Position>,
        /// The JSON path, such as `boot.kernel`; empty for the document itself.
        field: String,
        /// What is wrong and what to write instead.
        message: String,
    },
    /// A flag of the command line has a value that can't be: a usage error rather than a bad config.
    #[error("{flag}: {problem}")]
    Flag {
        /// The flag.
        flag: Flag,
        /// What is wrong and what to write instead.
        problem: ValueError,
    },
}

impl ConfigError {
    /// `problem` with a field of the file `origin`, whose place in the text is not known. A config that came from no file
    /// is called that.
    pub(crate) fn field(origin: Option<&Path>, field: &str, problem: &ValueError) -> ConfigError {
        ConfigError::Field {
            file: origin.unwrap_or(Path::new("config")).to_owned(),
            at: None,
            field: field.to_owned(),
            message: problem.to_string(),
        }
    }
}

/// Where in the text, both counted from 1; the column in bytes, of the last byte that was understood.
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

/// The `3:12:` between the file and the field, where the position is known.
struct Place<'a>(&'a Option<Position>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |at| write!(f, "{at}:"))
    }
}

/// The `boot.kernel: ` before the message, but for the document itself.
struct Prefix<'a>(&'a str);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

/// What is there instead of a config file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadProblem {
    /// Nothing has that name.
    #[error("no such file")]
    Missing,
    /// A directory, pipe, socket or device, named with its article.
    #[error("is {0}, give the path of a JSON file")]
    NotAFile(&'static str),
    /// Longer than a config may be.
    #[error("longer than {0}, the most that a config file may be")]
    TooLong(ByteSize),
    /// Not text; the offset of the first offending byte.
    #[error("not UTF-8 at byte {0}, save the file as UTF-8")]
    NotUtf8(usize),
    /// Nothing but white space.
    #[error(r#"empty, write at least {{"boot": {{"kernel": "vmlinuz"}}}}"#)]
    Empty,
}
