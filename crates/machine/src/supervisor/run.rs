//! The result of a run.

use std::fmt;

use crate::diagnostics::ExitReport;
use crate::{Ending, Error};

/// The result of a run.
#[derive(Debug)]
pub struct Run {
    /// How the last machine ended.
    pub ending: Ending,
    /// The last machine's exits, if they were counted.
    pub exits: Option<Box<ExitReport>>,
    /// What the guest may have lost although a device had completed it, a message for each device.
    pub losses: Vec<String>,
}

impl Run {
    /// The monitor's exit code: that of the [ending](Ending::exit_code), but 4 if the guest ended in order and may have lost
    /// something.
    pub fn exit_code(&self) -> u8 {
        if self.losses.is_empty() { self.ending.exit_code() } else { self.ending.exit_code_with_losses() }
    }
}

/// Why a run failed.
#[derive(Debug)]
pub struct RunError {
    /// The error.
    pub error: Error,
    /// As [`Run::losses`].
    pub losses: Vec<String>,
}

/// Nothing has been lost.
impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        Self { error, losses: Vec::new() }
    }
}

impl fmt::Display for RunError {
    /// The error and the losses, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        self.losses.iter().try_for_each(|loss| write!(f, "; {loss}"))
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}
