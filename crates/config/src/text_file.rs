//! Reads the text of a config file.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use crate::{
    error::{ConfigError, ReadProblem},
    size::ByteSize,
};

/// Maximum length of a file: a hundred times the total length of all fields at their maximum.
pub(crate) const MAX_LEN: ByteSize = ByteSize::MIB;

/// Reads the text of a config file.
pub(crate) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let refused = |problem| ConfigError::Read { file: path.to_owned(), problem };
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => refused(ReadProblem::Missing),
        _ => ConfigError::Io { file: path.to_owned(), source },
    };
    // Before opening, because opening a pipe waits for its writer. A pipe that is open already ends when its
    // writer closes it.
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    let is_readable = kind.is_file() || (kind.is_fifo() && is_descriptor(path));
    if !is_readable {
        return Err(refused(ReadProblem::NotAFile(describe_file_type(kind))));
    }
    // Reading one byte more than allowed detects longer files without trusting the reported length.
    let limit = MAX_LEN;
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(failed)?.take(limit.bytes() + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit.bytes() {
        return Err(refused(ReadProblem::TooLong(limit)));
    }
    String::from_utf8(bytes).map_err(|error| refused(ReadProblem::NotUtf8(error.utf8_error().valid_up_to())))
}

/// Whether `path` is that of a descriptor, such as standard input, which has no directory.
pub(crate) fn is_descriptor(path: &Path) -> bool {
    let descriptors = ["/dev/fd", "/proc/self/fd"];
    path == Path::new("/dev/stdin")
        || descriptors.iter().any(|directory| path.parent() == Some(Path::new(directory)))
}

/// The type of a file that isn't regular, with an article, for messages.
pub fn describe_file_type(kind: fs::FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}
