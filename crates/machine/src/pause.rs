//! Pause and resume.
//!
//! ```text
//!   configured
//!      |  start
//!      v     pause                       the devices are at rest
//!   running -------> vCPUs out of the guest -------------------> paused
//!      ^                                                           |
//!      +----------------- devices, then vCPUs <--------------------+
//!                                resume
//! ```
//! The vCPUs are paused first, so that the devices get no new requests, and resumed last. A device may take long to come to rest: a
//! disk completes the requests that are in flight. The event loop keeps running meanwhile.

use std::time::Duration;

use vmm_config::{CommandError, ErrorCode};

use crate::machine::Machine;
use crate::run_state::RunState;

/// Time that vCPUs have to leave the guest. They need microseconds, unless they wait in the kernel for a file's page.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

impl Machine {
    /// Lets the vCPUs of a machine that is configured enter the guest for the first time.
    pub(crate) fn start(&mut self) {
        self.vcpus.resume();
        self.state = RunState::Running;
    }

    /// Begins to pause a machine that runs. A paused one stays so; one that pauses and would go on then doesn't. `say` tells the user.
    ///
    /// # Errors
    /// A vCPU doesn't leave the guest; all run on.
    pub(crate) fn pause(&mut self, say: impl FnMut(&str)) -> Result<(), CommandError> {
        match &mut self.state {
            RunState::Running => {
                if !self.vcpus.pause_within(PATIENCE) {
                    self.vcpus.resume();
                    let message = "not paused: a vCPU is waiting for a page of a memory-mapped file";
                    return Err(CommandError::new(ErrorCode::StorageHangs, message));
                }
                self.virtio.begin_suspend();
                self.state = RunState::Pausing { resumes: false };
                self.finish_pause(say);
            }
            RunState::Pausing { resumes } => *resumes = false,
            RunState::Configured | RunState::Paused => {}
        }
        Ok(())
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

    /// Lets a paused machine go on, and one that pauses as soon as its devices are at rest.
    pub(crate) fn resume(&mut self, mut say: impl FnMut(&str)) {
        match &mut self.state {
            RunState::Running => {}
            RunState::Configured => {
                say("started");
                self.start();
            }
            RunState::Pausing { resumes } => *resumes = true,
            RunState::Paused => {
                // Before whatever the guest prints.
                say("resumed");
                self.virtio.resume();
                self.vcpus.resume();
                self.state = RunState::Running;
            }
        }
    }
}
