//! A socket client that has disconnected before the guest has read all its input.

use std::io;
use std::time::Duration;

use event_manager::{EventOps, EventSet};
use vmm_sys_util::timerfd::TimerFd;

use crate::watch::Watch;

/// How long the guest may read nothing of that input while another client waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// The input of a client that has disconnected, such as `echo reboot | nc`, is still delivered. So that a guest which reads no
/// input doesn't lock out other clients, the guest has a few seconds to read some of it once another client waits. They don't end
/// while the machine is paused.
#[derive(Debug)]
pub(super) struct DepartedClient {
    is_draining: bool,
    timer: TimerFd,
    watch: Watch,
    is_urgent: bool,
}

impl DepartedClient {
    /// The expiry of [`PATIENCE`] is an event with `token`.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new(token: u32) -> io::Result<Self> {
        let watch = Watch::new(token, EventSet::IN);
        Ok(Self { is_draining: false, timer: TimerFd::new()?, watch, is_urgent: false })
    }

    /// Whether a disconnected client's input is still being delivered.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// The client has disconnected, and some of its input remains.
    pub(super) fn begin(&mut self) {
        self.is_draining = true;
    }

    /// Another client waits: starts the timer. `false` if it can't be set.
    pub(super) fn hurry(&mut self, ops: &mut EventOps<'_>) -> bool {
        self.is_urgent = self.timer.reset(PATIENCE, None).is_ok();
        if self.is_urgent {
            self.watch.arm(&self.timer, ops);
        }
        self.is_urgent
    }

    /// The guest has read some of the input: stops the timer. Returns whether it was running.
    pub(super) fn relax(&mut self, ops: &mut EventOps<'_>) -> bool {
        let was_urgent = std::mem::take(&mut self.is_urgent);
        if was_urgent {
            self.watch.disarm(&self.timer, ops);
            // If it can't be stopped, its expiry isn't watched.
            let _ = self.timer.clear();
        }
        was_urgent
    }

    /// All of the input has been read, or the timer has expired.
    pub(super) fn end(&mut self, ops: &mut EventOps<'_>) {
        self.relax(ops);
        self.is_draining = false;
    }

    /// Why the timer isn't watched.
    pub(super) fn take_failure(&mut self) -> Option<event_manager::Error> {
        self.watch.take_failure()
    }

    /// The console has left its event loop. The input is still to be delivered.
    pub(super) fn forget(&mut self) {
        self.watch.forget();
        self.is_urgent = false;
        let _ = self.timer.clear();
    }

    /// Lets a running timer expire at once.
    #[cfg(test)]
    pub(super) fn expire(&mut self) {
        self.timer.reset(Duration::from_nanos(1), None).unwrap();
    }
}
