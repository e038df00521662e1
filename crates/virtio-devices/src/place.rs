//! The config field and path of a file, for messages.

use std::io;
use std::path::Path;

use vmm_virtio::DeviceError;

/// How a file is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// A file named by a config field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) path: &'a Path,
    pub(crate) field: &'a str,
}

impl Place<'_> {
    /// An error of the config: `problem` describes the file and what to change.
    pub(crate) fn wrong(&self, problem: &str) -> DeviceError {
        DeviceError::config(self.field, format!("{} {problem}", self.path.display()))
    }

    /// An error of the host, or of the config if the path itself is at fault.
    pub(crate) fn host(&self, problem: &str, error: &io::Error) -> DeviceError {
        use nix::errno::Errno as Code;
        let text = format!("{} {problem}: {error}", self.path.display());
        match error.raw_os_error().map(Code::from_raw) {
            Some(Code::ELOOP) => DeviceError::config(
                self.field,
                format!("{text}: a symbolic link leads to itself, correct it"),
            ),
            Some(Code::ENOENT | Code::ENOTDIR | Code::ENAMETOOLONG | Code::EISDIR) => {
                DeviceError::config(self.field, format!("{text}: correct the path"))
            }
            _ => DeviceError::host(self.field, text),
        }
    }
}
