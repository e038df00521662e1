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

use std::time::Duration;

use crate::machine::Machine;

/// Time that vCPUs have to leave the guest. They need microseconds, unless they wait in the kernel for a file's page.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

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
    /// Pauses a running machine, or resumes a paused one. `say` tells the user.
    pub(crate) fn toggle_pause(&mut self, say: impl FnMut(&str)) {
        match &mut self.state {
            RunState::Running => self.pause(say),
            RunState::Pausing { resumes } => *resumes = !*resumes,
            RunState::Paused => self.resume(say),
        }
    }

    /// Completes a pause if all devices have come to rest. To be called when one may have.
    pub(crate) fn finish_pause(&mut self, mut say: impl FnMut(&str)) {
        let RunState::Pausing { resumes } = self.state else { return };
        if !self.virtio.are_at_rest() {
            return;
        }
        self.state = RunState::Paused;
        if resumes {
            self.resume(say);
        } else {
            say("paused; Ctrl-A p resumes");
        }
    }

    fn pause(&mut self, mut say: impl FnMut(&str)) {
        if !self.vcpus.pause_within(PATIENCE) {
            self.vcpus.resume();
            return say("not paused: a vCPU waits for a file that it has as memory");
        }
        self.virtio.begin_suspend();
        self.state = RunState::Pausing { resumes: false };
        self.finish_pause(say);
    }

    fn resume(&mut self, mut say: impl FnMut(&str)) {
        // Before whatever the guest prints.
        say("resumed");
        self.virtio.resume();
        self.vcpus.resume();
        self.state = RunState::Running;
    }
}
