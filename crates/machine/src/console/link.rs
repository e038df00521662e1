//! A console's connection to its peer.

use crate::fd::HostFd;

/// The descriptors of a connection; either may be missing.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) input: Option<HostFd>,
    pub(super) output: Option<HostFd>,
}
