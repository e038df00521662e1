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
//! A machine that is saved is paused meanwhile, and then does what it did before or was asked to do.
//!
//! The vCPUs are paused first, so that the devices get no new requests, and resumed last. A device may take long to come to
//! rest: a disk completes its requests in flight. The event loop keeps running meanwhile.

use std::time::Duration;

use vmm_config::{CommandError, ErrorCode};

use crate::machine::Machine;
use crate::run_state::{AfterSaving, RunState};

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
        if std::mem::take(&mut self.is_restored) {
            self.virtio.resume();
            self.virtio.rouse();
        }
        self.vcpus.resume();
        self.state = RunState::Running;
    }

    /// Starts to pause a running machine. A paused one stays paused; a pending resume is cancelled. `notify` is told when it is
    /// paused.
    ///
    /// # Errors
    /// A vCPU doesn't leave the guest within [`PATIENCE`]. All vCPUs keep running.
    pub(crate) fn pause(&mut self, mut notify: impl FnMut(Change)) -> Result<(), CommandError> {
        match &mut self.state {
            RunState::Running => {
                self.stop_vcpus()?;
                self.state = RunState::Pausing { resumes: false, saves: false };
                self.finish_pause(notify);
            }
            RunState::Pausing { resumes, .. } => *resumes = false,
            RunState::Saving { then: then @ AfterSaving::Starts, .. } => *then = AfterSaving::Waits,
            RunState::Saving { then: then @ AfterSaving::Resumes, is_told } => {
                *then = AfterSaving::StaysPaused;
                if !std::mem::replace(is_told, true) {
                    notify(Change::Paused);
                }
            }
            RunState::Configured | RunState::Paused | RunState::Saving { .. } => {}
        }
        Ok(())
    }

    /// Pauses the vCPUs, and asks the devices to come to rest.
    fn stop_vcpus(&self) -> Result<(), CommandError> {
        if !self.vcpus.pause_within(PATIENCE) {
            self.vcpus.resume();
            let message = "not paused: a vCPU is waiting for a page of a memory-mapped file";
            return Err(CommandError::new(ErrorCode::StorageHangs, message));
        }
        self.virtio.begin_suspend();
        Ok(())
    }

    /// Starts to bring the machine to rest, so that it can be saved. It is [`Saving`](RunState::Saving) at once, or after a
    /// [`finish_pause`](Self::finish_pause), until [`end_saving`](Self::end_saving).
    ///
    /// # Errors
    /// As for [`pause`](Self::pause).
    pub(crate) fn begin_saving(&mut self, notify: impl FnMut(Change)) -> Result<(), CommandError> {
        match &mut self.state {
            RunState::Running => {
                self.stop_vcpus()?;
                self.state = RunState::Pausing { resumes: true, saves: true };
                self.finish_pause(notify);
            }
            RunState::Pausing { saves, .. } => *saves = true,
            RunState::Configured => {
                self.state = RunState::Saving { then: AfterSaving::Waits, is_told: false }
            }
            RunState::Paused => {
                self.state = RunState::Saving { then: AfterSaving::StaysPaused, is_told: true }
            }
            RunState::Saving { .. } => {}
        }
        Ok(())
    }

    /// The machine was saved, or couldn't be: it goes on.
    pub(crate) fn end_saving(&mut self, mut notify: impl FnMut(Change)) {
        let RunState::Saving { then, is_told } = self.state else { return };
        match then {
            AfterSaving::Waits => self.state = RunState::Configured,
            AfterSaving::StaysPaused => self.state = RunState::Paused,
            AfterSaving::Starts => {
                notify(Change::Started);
                self.start();
            }
            AfterSaving::Resumes => {
                // Before the guest prints anything.
                if is_told {
                    notify(Change::Resumed);
                }
                self.go_on();
            }
        }
    }

    fn go_on(&mut self) {
        self.virtio.resume();
        self.vcpus.resume();
        self.state = RunState::Running;
    }

    /// Completes a pause if all devices are at rest. Called whenever one may have come to rest.
    pub(crate) fn finish_pause(&mut self, mut notify: impl FnMut(Change)) {
        let RunState::Pausing { resumes, saves } = self.state else { return };
        if !self.virtio.are_at_rest() {
            return;
        }
        if saves {
            let then = if resumes { AfterSaving::Resumes } else { AfterSaving::StaysPaused };
            if !resumes {
                notify(Change::Paused);
            }
            self.state = RunState::Saving { then, is_told: !resumes };
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
            RunState::Pausing { resumes, .. } => *resumes = true,
            RunState::Saving { then: then @ AfterSaving::Waits, .. } => *then = AfterSaving::Starts,
            RunState::Saving { then: then @ AfterSaving::StaysPaused, .. } => *then = AfterSaving::Resumes,
            RunState::Saving { .. } => {}
            RunState::Paused => {
                // Before the guest prints anything.
                notify(Change::Resumed);
                self.go_on();
            }
        }
    }
}
