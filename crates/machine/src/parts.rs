//! What machines have in common.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::{Diagnostics, Messages};

/// What a machine gets from its owner, whose other machines have it too.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) diagnostics: Diagnostics,
    /// Where a trace goes.
    pub(crate) lines: Messages,
    /// Which may be a terminal that doesn't return the carriage by itself.
    pub(crate) is_raw_terminal: bool,
    /// Written when a vCPU has ended.
    pub(crate) ended: Arc<EventFd>,
    /// Written when a virtio device has news.
    pub(crate) news: Arc<EventFd>,
}
