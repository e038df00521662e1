//! Pause and resume.
//!
//! ```text
//!            pause                       the devices are at rest
//!   running -------> vCPUs out of the guest -------------------> paused
//!      ^                                                           |
//!      +----------------- devices, then vCPUs <--------------------+
//!                                resume
//! ```
//! The vCPUs are paused first, so that the devices get no new requests, and resumed last. A device may take long to come to rest: a
//! disk completes the requests that are in flight. The event loop keeps running meanwhile.

use crate::Machine;

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RunState {
    #[default]
    Running,
    /// The vCPUs are paused; devices complete their requests.
    Pausing {
        /// Resume as soon as they have.
        resumes: bool,
    },
    Paused,
}

impl Machine {
    /// Pauses a running machine, or resumes a paused one.
    pub(crate) fn toggle_pause(&mut self) {
        match &mut self.state {
            RunState::Running => self.pause(),
            RunState::Pausing { resumes } => *resumes = !*resumes,
            RunState::Paused => self.resume(),
        }
    }

    /// Completes a pause if all devices have come to rest. To be called when one may have.
    pub(crate) fn finish_pause(&mut self) {
        let RunState::Pausing { resumes } = self.state else { return };
        if !self.virtio.are_at_rest() {
            return;
        }
        self.state = RunState::Paused;
        if resumes {
            self.resume();
        } else {
            self.say("paused; Ctrl-A p resumes");
        }
    }

    fn pause(&mut self) {
        self.vcpus.pause();
        self.virtio.begin_suspend();
        self.state = RunState::Pausing { resumes: false };
        self.finish_pause();
    }

    fn resume(&mut self) {
        // Before whatever the guest prints.
        self.say("resumed");
        self.virtio.resume();
        self.vcpus.resume();
        self.state = RunState::Running;
    }
}
