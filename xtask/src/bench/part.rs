//! What the two halves agree on.

use clap::ValueEnum;

/// What the measuring half leaves in the directory that it's given.
pub(super) const SAMPLES_FILE: &str = "samples.json";

/// What is measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Part {
    Start,
    Block,
    Memory,
    Net,
}

impl Part {
    /// As it's written on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Block => "block",
            Self::Memory => "memory",
            Self::Net => "net",
        }
    }
}
