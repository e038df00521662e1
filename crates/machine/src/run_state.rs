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
    },
    Paused,
}
