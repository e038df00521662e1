//! Progress of a run.

use std::fmt;

/// Progress of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The outer kernel hasn't reached its first process.
    Boot,
    /// Its first process mounts file systems and looks for consoles.
    Setup,
    /// The command runs.
    Command,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "booting the outer kernel",
            Self::Setup => "setting up the outer machine",
            Self::Command => "running the command",
        })
    }
}
