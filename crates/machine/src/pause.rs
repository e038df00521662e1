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
//! The vCPUs are paused first, so that the devices get no new requests, and resumed last. A device may take long to come to
//! rest: a disk completes its requests in flight. The event loop keeps running meanwhile.

use std::time::Duration;

use vmm_config::{CommandError, ErrorCode};

use crate::machine::Machine;
use crate::run_state::RunState;

/// How long vCPUs may take to leave the guest. It takes microseconds, unless one is waiting in the kernel for a page of a file.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// A change of a machine's state that others are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Its guest starts.
    Started,
    /// It is paused.
    Paused,
    /// It runs again.
    Resumed,
}

impl Machine {
    /// Starts the vCPUs of a configured machine.
    pub(crate) fn start(&mut self) {
        self.vcpus.resume();
        self.state = RunState::Running;
    }

    /// Starts to pause a running machine. A paused one stays paused; a pending resume is cancelled. `notify` is told when it is
    /// paused.
    ///
    /// # Errors
    /// A vCPU doesn't leave the guest within [`PATIENCE`]. All vCPUs keep running.
    pub(crate) fn pause(&mut self, notify: impl FnMut(Change)) -> Result<(), CommandError> {
        match &mut self.state {
            RunState::Running => {
                if !self.vcpus.pause_within(PATIENCE) {
                    self.vcpus.resume();
                    let message = "not paused: a vCPU is waiting for a page of a memory-mapped file";
                    return Err(CommandError::new(ErrorCode::StorageHangs, message));
                }
                self.virtio.begin_suspend();
                self.state = RunState::Pausing { resumes: false };
                self.finish_pause(notify);
            }
            RunState::Pausing { resumes } => *resumes = false,
            RunState::Configured | RunState::Paused => {}
        }
        Ok(())
    }

    /// Completes a pause if all devices are at rest. Called whenever one may have come to rest.
    pub(crate) fn finish_pause(&mut self, mut notify: impl FnMut(Change)) {
        let RunState::Pausing { resumes } = self.state else { return };
        if !self.virtio.are_at_rest() {
            return;
        }
        self.state = RunState::Paused;
        if resumes {
            self.resume(notify);
        } else {
            notify(Change::Paused);
        }
    }

    /// Resumes a paused machine, or starts a configured one. One that is pausing resumes as soon as its devices are at rest.
    pub(crate) fn resume(&mut self, mut notify: impl FnMut(Change)) {
        match &mut self.state {
            RunState::Running => {}
            RunState::Configured => {
                notify(Change::Started);
                self.start();
            }
            RunState::Pausing { resumes } => *resumes = true,
            RunState::Paused => {
                // Before the guest prints anything.
                notify(Change::Resumed);
                self.virtio.resume();
                self.vcpus.resume();
                self.state = RunState::Running;
            }
        }
    }
}
