//! The text of a file that is fit to be a config.

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

/// The longest file that is read: a hundred times what every field at its longest needs.
pub(crate) const MAX_LEN: ByteSize = ByteSize::MIB;

/// The text of a file that is fit to be a config.
pub(crate) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let refused = |problem| ConfigError::Read { file: path.to_owned(), problem };
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => refused(ReadProblem::Missing),
        _ => ConfigError::Io { file: path.to_owned(), source },
    };
    // Before opening: opening a pipe would wait for its writer. One that is open already ends when its writer does.
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    let is_readable = kind.is_file() || (kind.is_fifo() && is_descriptor(path));
    if !is_readable {
        return Err(refused(ReadProblem::NotAFile(describe_file_type(kind))));
    }
    // One byte more than allowed shows that there is more, without trusting the length that the file claims.
    let limit = MAX_LEN;
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(failed)?.take(limit.bytes() + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit.bytes() {
        return Err(refused(ReadProblem::TooLong(limit)));
    }
    String::from_utf8(bytes).map_err(|error| refused(ReadProblem::NotUtf8(error.utf8_error().valid_up_to())))
}

/// Whether `path` is that of a descriptor, such as standard input: what is read there is in no directory.
pub(crate) fn is_descriptor(path: &Path) -> bool {
    let descriptors = ["/dev/fd", "/proc/self/fd"];
    path == Path::new("/dev/stdin")
        || descriptors.iter().any(|directory| path.parent() == Some(Path::new(directory)))
}

/// What is there instead of a regular file, with its article, for messages.
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
