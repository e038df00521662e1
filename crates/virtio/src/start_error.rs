//! The error of a device whose thread can't be started.

use std::{fmt, io};

use crate::VirtioDevice;

/// Why a device's thread can't be started. Returns the device, which may have data for the host's programs.
#[derive(thiserror::Error)]
#[error("{error}")]
pub struct StartError {
    /// What the host lacks.
    pub error: io::Error,
    /// The device.
    pub device: Box<dyn VirtioDevice>,
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartError").field("error", &self.error).finish_non_exhaustive()
    }
}
