//! Errors of opening or changing a device.

use std::error::Error;
use std::fmt;

use vmm_config::FieldError;

/// Why a device can't be opened as configured, or changed as requested.
#[derive(Debug)]
pub struct DeviceError {
    /// The offending field, such as `path`; empty for the device as a whole.
    pub field: String,
    /// Who can fix it.
    pub blame: DeviceBlame,
    /// What is wrong and what to change.
    pub source: Box<dyn Error + Send + Sync>,
}

/// Who can fix a [`DeviceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceBlame {
    /// The author of the config or request.
    Config,
    /// The administrator of the host.
    Host,
}

impl DeviceError {
    /// The value of `field` can't be used.
    pub fn config(field: &str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { field: field.to_owned(), blame: DeviceBlame::Config, source: source.into() }
    }

    /// The host lacks something that `field` needs.
    pub fn host(field: &str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { field: field.to_owned(), blame: DeviceBlame::Host, source: source.into() }
    }
}

/// To be printed after the device's position in the config, such as `devices[1]`.
impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, source, .. } = self;
        let dot = if field.is_empty() { "" } else { "." };
        write!(f, "{dot}{field}: {source}")
    }
}

impl Error for DeviceError {}

impl From<FieldError> for DeviceError {
    fn from(FieldError { field, problem }: FieldError) -> Self {
        Self::config(&field, problem)
    }
}
