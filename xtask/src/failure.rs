//! How a command ends.

use std::process::ExitCode;

/// A failure that ends a command; it's printed once, by main.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// An exit code of a command as ours. What doesn't fit into eight bits can't come from a process.
pub(crate) fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
