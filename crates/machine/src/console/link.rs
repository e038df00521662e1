//! A console's connection to its peer.

use std::io;

use crate::fd::HostFd;

/// The descriptors of a connection; either may be missing.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) input: Option<HostFd>,
    pub(super) output: Option<HostFd>,
}

impl Link {
    /// Starts the threads of files.
    ///
    /// # Errors
    /// The host is out of threads.
    pub(super) fn start(&self) -> io::Result<()> {
        [&self.input, &self.output].into_iter().flatten().try_for_each(HostFd::start)
    }
}
