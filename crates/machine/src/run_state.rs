//! The run state of a machine.

/// The run state of a machine; the transitions are drawn in `pause.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RunState {
    /// No vCPU has executed an instruction yet.
    #[default]
    Configured,
    Running,
    /// The vCPUs are paused; the devices are completing their requests.
    Pausing {
        /// Resume as soon as they are done.
        resumes: bool,
        /// Before that, the machine is saved.
        saves: bool,
    },
    Paused,
    /// Paused, while a snapshot is written.
    Saving {
        then: AfterSaving,
        /// Others have been told that it is paused.
        is_told: bool,
    },
}

/// What a machine does when it has been saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterSaving {
    /// It waits to be started, as before.
    Waits,
    /// It starts.
    Starts,
    StaysPaused,
    Resumes,
}
