//! `cargo xtask guests`: builds the bare-metal guests as files, for booting by hand.

use std::process::ExitCode;

use crate::failure::Failure;
use crate::workspace;

/// Builds images that aren't up to date, and prints the path of each, relative to the workspace, and its length.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    for path in driver::guests::all()? {
        workspace::print_file(&path)?;
    }
    Ok(ExitCode::SUCCESS)
}
