//! A client that has left a socket before the guest has taken all that it typed.

use std::io;
use std::time::Duration;

use event_manager::{EventOps, EventSet};
use vmm_sys_util::timerfd::TimerFd;

use crate::watch::Watch;

/// How long the guest may take nothing of what was typed while another client waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who typed and left, as `echo reboot | nc` does, is heard to the end. A guest that takes no input must not lock other
/// clients out by that, so once one waits, the guest has a few seconds to take some.
#[derive(Debug)]
pub(super) struct Departed {
    is_heard: bool,
    timer: TimerFd,
    watch: Watch,
    is_urgent: bool,
}

impl Departed {
    /// The end of the guest's time is an event with `token`.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new(token: u32) -> io::Result<Self> {
        let watch = Watch::new(token, EventSet::IN);
        Ok(Self { is_heard: false, timer: TimerFd::new()?, watch, is_urgent: false })
    }

    /// Whether there is such a client.
    pub(super) fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// The client has left, and something that it typed remains.
    pub(super) fn begin(&mut self) {
        self.is_heard = true;
    }

    /// Another client waits: the guest's time begins. `false` if it can't be measured.
    pub(super) fn hurry(&mut self, ops: &mut EventOps<'_>) -> bool {
        self.is_urgent = self.timer.reset(PATIENCE, None).is_ok();
        if self.is_urgent {
            self.watch.arm(&self.timer, ops);
        }
        self.is_urgent
    }

    /// The guest has taken some. Whether its time had begun, which is over with that.
    pub(super) fn relax(&mut self, ops: &mut EventOps<'_>) -> bool {
        let was_urgent = std::mem::take(&mut self.is_urgent);
        if was_urgent {
            self.watch.disarm(&self.timer, ops);
            // One that can't be stopped expires unseen.
            let _ = self.timer.clear();
        }
        was_urgent
    }

    /// All of it has been taken, or the guest's time is over.
    pub(super) fn end(&mut self, ops: &mut EventOps<'_>) {
        self.relax(ops);
        self.is_heard = false;
    }

    /// The event loop that waited is no more. The client is still heard.
    pub(super) fn forget(&mut self) {
        self.watch.forget();
        self.is_urgent = false;
        let _ = self.timer.clear();
    }

    /// The guest's time is over as soon as another client waits.
    #[cfg(test)]
    pub(super) fn expire(&mut self) {
        self.timer.reset(Duration::from_nanos(1), None).unwrap();
    }
}
