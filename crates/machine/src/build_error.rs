//! The error of a machine that can't be built.

use crate::Error;
use crate::virtio::OpenDevice;

/// Why there is no machine, and the devices that it would have had: they may have data for the host's programs.
#[derive(Debug)]
pub(crate) struct BuildError {
    pub(crate) error: Error,
    pub(crate) devices: Vec<OpenDevice>,
}
