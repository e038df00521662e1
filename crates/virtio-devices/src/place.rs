//! Where a config names a file, and what is to be done with that.

use std::io;
use std::path::Path;

use vmm_virtio::DeviceError;

/// What may be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// The field of the config that names a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) path: &'a Path,
    pub(crate) field: &'a str,
}

impl Place<'_> {
    /// The config is wrong: `problem` is what the file is or has, and what to change.
    pub(crate) fn wrong(&self, problem: &str) -> DeviceError {
        DeviceError::config(self.field, format!("{} {problem}", self.path.display()))
    }

    /// The host refuses; if it's the path that it refuses, the config is wrong.
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
