//! Whether a machine runs.

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RunState {
    /// Its vCPUs stand before their first instruction.
    #[default]
    Configured,
    Running,
    /// The vCPUs are paused; devices complete their requests.
    Pausing {
        /// Resume as soon as they have.
        resumes: bool,
    },
    Paused,
}
