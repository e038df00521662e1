//! Batching of the output of a guest that prints byte by byte.

use std::io;
use std::time::Duration;

use event_manager::{EventOps, EventSet};
use vmm_sys_util::timerfd::TimerFd;

use crate::watch::{ArmOutcome, Watch};

/// How long output is left to gather. Too short to be visible at a terminal.
const PAUSE: Duration = Duration::from_millis(1);
/// Output of this many bytes or more causes no pause.
pub(super) const WORTH_WAKING: usize = 512;

/// Lets the output of a guest that prints byte by byte gather for a moment.
///
/// Each byte would wake the main thread, which takes it and sleeps again: two context switches per byte, more than the byte's own
/// exit costs where both threads share a processor. So a few bytes are written at once, and then the console pauses. A guest that
/// prints a lot is never delayed.
#[derive(Debug)]
pub(super) struct Pace {
    timer: TimerFd,
    watch: Watch,
    is_pausing: bool,
}

impl Pace {
    /// The end of a pause is reported as an event with `token`.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new(token: u32) -> io::Result<Self> {
        Ok(Self { timer: TimerFd::new()?, watch: Watch::new(token, EventSet::IN), is_pausing: false })
    }

    /// Whether a pause is under way.
    pub(super) fn is_pausing(&self) -> bool {
        self.is_pausing
    }

    /// Records that `len` bytes were taken. Returns whether a pause begins.
    pub(super) fn took(&mut self, len: usize, ops: &mut EventOps<'_>) -> bool {
        // If the timer can't be set or watched there is no pause.
        self.is_pausing = len < WORTH_WAKING
            && self.timer.reset(PAUSE, None).is_ok()
            && self.watch.arm(&self.timer, ops) == ArmOutcome::Waiting;
        self.is_pausing
    }

    /// The pause's event has come.
    pub(super) fn over(&mut self) {
        // It has expired, so this doesn't block.
        let _ = self.timer.wait();
        self.is_pausing = false;
    }

    /// Makes the pause's event come at once.
    pub(super) fn hurry(&mut self) {
        if self.is_pausing {
            // If it fails, the pause ends as usual.
            let _ = self.timer.reset(Duration::from_nanos(1), None);
        }
    }

    /// Stops the timer: the pause ends only by [`hurry`](Self::hurry).
    #[cfg(test)]
    pub(super) fn stop_time(&mut self) {
        self.timer.clear().unwrap();
    }

    /// Why the timer isn't watched.
    pub(super) fn take_failure(&mut self) -> Option<event_manager::Error> {
        self.watch.take_failure()
    }

    /// The console has left its event loop: ends any pause.
    pub(super) fn forget(&mut self) {
        self.watch.forget();
        self.is_pausing = false;
        // If it can't be stopped, its expiry isn't watched, or ends a later pause early.
        let _ = self.timer.clear();
    }
}
