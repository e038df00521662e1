//! How often a console looks for more of what the guest prints.

use std::io;
use std::time::Duration;

use event_manager::{EventOps, EventSet};
use vmm_sys_util::timerfd::TimerFd;

use crate::watch::Watch;

/// The time between two looks at a guest that prints a little at a time. Nobody sees it at a terminal.
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes for which it is worth waking up.
pub(super) const WORTH_WAKING: usize = 512;

/// Lets the output of a guest that prints byte by byte gather.
///
/// The guest's word that it has printed wakes the main thread, which takes one byte and sleeps again: two changes of thread
/// for each byte, more than the byte's own exit costs where both threads share a processor. So after a few bytes, which are
/// written at once, the console doesn't look again for a moment. A guest that prints a lot is never kept waiting.
#[derive(Debug)]
pub(super) struct Pace {
    timer: TimerFd,
    watch: Watch,
    is_pausing: bool,
}

impl Pace {
    /// The end of a pause is an event with `token`.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new(token: u32) -> io::Result<Self> {
        Ok(Self { timer: TimerFd::new()?, watch: Watch::new(token, EventSet::IN), is_pausing: false })
    }

    /// Whether the guest's output is left alone for now.
    pub(super) fn is_pausing(&self) -> bool {
        self.is_pausing
    }

    /// So many bytes came. Whether a pause begins.
    pub(super) fn took(&mut self, len: usize, ops: &mut EventOps<'_>) -> bool {
        // A timer that can't be set is no pause.
        self.is_pausing = len < WORTH_WAKING && self.timer.reset(PAUSE, None).is_ok();
        if self.is_pausing {
            self.watch.arm(&self.timer, ops);
        }
        self.is_pausing
    }

    /// The pause is over, by its event.
    pub(super) fn over(&mut self) {
        // It has expired, so this doesn't wait.
        let _ = self.timer.wait();
        self.is_pausing = false;
    }

    /// Ends the pause at once: its event comes.
    pub(super) fn hurry(&mut self) {
        if self.is_pausing {
            // If it fails, the pause just takes its time.
            let _ = self.timer.reset(Duration::from_nanos(1), None);
        }
    }

    /// The pause ends only when it is hurried.
    #[cfg(test)]
    pub(super) fn stop_time(&mut self) {
        self.timer.clear().unwrap();
    }

    /// The event loop that waited is no more, and no pause is under way.
    pub(super) fn forget(&mut self) {
        self.watch.forget();
        self.is_pausing = false;
        // One that can't be stopped expires unseen, or ends a later pause too early.
        let _ = self.timer.clear();
    }
}
