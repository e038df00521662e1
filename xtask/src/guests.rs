//! `cargo xtask guests`: builds the bare-metal guests as files, for booting by hand.

use std::fs;
use std::process::ExitCode;

use crate::failure::Failure;
use crate::workspace;

/// Builds images that aren't up to date, and prints the path of each, relative to the workspace, and its length.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    for path in driver::guests::all()? {
        let len = fs::metadata(&path)?.len();
        let shown = path.strip_prefix(workspace::root()).unwrap_or(&path).display().to_string();
        println!("{shown:<34} {len:>6} bytes");
    }
    Ok(ExitCode::SUCCESS)
}
