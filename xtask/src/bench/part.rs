//! Names that both halves of a benchmark use.

use clap::ValueEnum;

/// The results file that the measuring half writes to its output directory.
pub(super) const SAMPLES_FILE: &str = "samples.json";

/// A benchmark of the measuring half.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Part {
    Start,
    Block,
    Memory,
    Net,
    Snapshot,
}

impl Part {
    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Block => "block",
            Self::Memory => "memory",
            Self::Net => "net",
            Self::Snapshot => "snapshot",
        }
    }
}
