//! Errors and exit codes of commands.

use std::process::ExitCode;

/// An error that ends a command. `main` prints it.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Converts the exit code of a command; codes that don't fit into eight bits become 255.
pub(crate) fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
