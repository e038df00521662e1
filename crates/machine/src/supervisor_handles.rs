//! What the supervisor shares with each machine that it builds.

use std::sync::Arc;

use vmm_bus::EventFd;

use crate::about::About;
use crate::open_host::OpenHost;
use crate::{Diagnostics, Messages};

/// Handles into the [`Supervisor`](crate::Supervisor), cloned for each machine.
#[derive(Clone, Debug)]
pub(crate) struct SupervisorHandles {
    pub(crate) host: Arc<OpenHost>,
    pub(crate) about: Arc<About>,
    pub(crate) diagnostics: Diagnostics,
    /// The queue for trace lines.
    pub(crate) lines: Messages,
    /// Whether `lines` may go to a terminal in raw mode, where a line ends in CR LF.
    pub(crate) is_raw_terminal: bool,
    /// Written when a vCPU's thread has exited.
    pub(crate) vcpu_ended: Arc<EventFd>,
    /// Written when a virtio device has a fault or log lines, answered a request, or stopped.
    pub(crate) news: Arc<EventFd>,
}
