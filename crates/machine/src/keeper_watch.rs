//! The end of the path keeper, which should outlive the monitor.

use std::os::fd::{AsRawFd, BorrowedFd};

use event_manager::{EventOps, EventSet, Events};
use tracing::error;
use vmm_hostio::path_keeper;

use crate::watched::Watched;

/// Logs that the keeper has ended. The machine runs on without it.
#[derive(Debug)]
pub(crate) struct KeeperWatch(BorrowedFd<'static>);

impl KeeperWatch {
    /// `None` if this process has no keeper.
    pub(crate) fn new() -> Option<Self> {
        path_keeper::socket().map(Self)
    }
}

impl Watched for KeeperWatch {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        ops.add(Events::new(&self.0.as_raw_fd(), EventSet::HANG_UP))
    }

    fn process(&mut self, _events: Events, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.remove(Events::empty(&self.0.as_raw_fd())) {
            error!("can't remove the path keeper from epoll: {error}");
        }
        error!(
            "the path keeper has ended: from now on, connections of the guest to programs of the host fail, and sockets and unused \
             files aren't removed; if nothing has killed it, please report this"
        );
    }
}
