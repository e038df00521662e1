//! A machine that stands still for a while.
//!
//! ```text
//!            pause                       the devices are at rest
//!   running -------> vCPUs out of the guest -------------------> paused
//!      ^                                                           |
//!      +----------------- devices, then vCPUs <--------------------+
//!                                resume
//! ```
//! The vCPUs come first, so that no device gets anything new to do, and no vCPU runs before each device does. How long a device
//! takes is the host's affair: a disk finishes what it has begun. The event loop goes on meanwhile.

use crate::Machine;

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Motion {
    #[default]
    Running,
    /// The vCPUs stand still, and devices finish what they have begun.
    Pausing {
        /// It is to go on as soon as they have.
        resumes: bool,
    },
    Paused,
}

impl Machine {
    /// Pauses a machine that runs, and lets one that doesn't go on.
    pub(crate) fn toggle_pause(&mut self) {
        match &mut self.motion {
            Motion::Running => self.pause(),
            Motion::Pausing { resumes } => *resumes = !*resumes,
            Motion::Paused => self.resume(),
        }
    }

    /// One or more of the devices may have come to rest.
    pub(crate) fn look_whether_paused(&mut self) {
        let Motion::Pausing { resumes } = self.motion else { return };
        if !self.virtio.are_at_rest() {
            return;
        }
        self.motion = Motion::Paused;
        if resumes {
            self.resume();
        } else {
            self.say("paused; Ctrl-A p continues");
        }
    }

    fn pause(&mut self) {
        self.vcpus.pause();
        self.virtio.begin_suspend();
        self.motion = Motion::Pausing { resumes: false };
        self.look_whether_paused();
    }

    fn resume(&mut self) {
        // Before whatever the guest prints.
        self.say("it goes on");
        self.virtio.resume();
        self.vcpus.resume();
        self.motion = Motion::Running;
    }
}
