//! The open targets of consoles, before there are lines to connect them to.

use std::path::PathBuf;

use vmm_virtio::HostEnd;

use super::link::Link;
use super::peer::{OpenError, Peer};

/// The open targets of a machine's consoles.
#[derive(Debug, Default)]
pub(crate) struct OpenTargets(Vec<OpenTarget>);

/// A console's open target.
#[derive(Debug)]
pub(super) struct OpenTarget {
    /// JSON path in the config.
    field: String,
    pub(super) end: HostEnd,
    pub(super) peer: Peer,
    pub(super) link: Link,
}

impl OpenTarget {
    fn open((field, end): (String, HostEnd)) -> Result<Self, OpenError> {
        let (peer, link) = Peer::open(&field, &end)?;
        Ok(Self { field, end, peer, link })
    }
}

impl OpenTargets {
    /// Opens the targets of `ends`. Files aren't truncated yet, and no thread is started. May block on slow storage.
    pub(crate) fn open(ends: impl Iterator<Item = (String, HostEnd)>) -> Result<Self, OpenError> {
        ends.map(OpenTarget::open).collect::<Result<_, _>>().map(Self)
    }

    /// The files that are removed at the end, or if the start is refused.
    pub(crate) fn removes(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().filter_map(|target| target.peer.removes())
    }

    pub(super) fn take(&mut self, field: &str) -> Option<OpenTarget> {
        let at = self.0.iter().position(|target| target.field == field)?;
        Some(self.0.swap_remove(at))
    }
}
