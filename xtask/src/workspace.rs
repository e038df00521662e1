//! Directories of the workspace, and cargo as a command.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::failure::Failure;

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Prints a file's path, relative to the workspace, and its length.
pub(crate) fn print_file(path: &Path) -> Result<(), Failure> {
    let len = fs::metadata(path)?.len();
    let shown = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    println!("{shown:<34} {len:>8} bytes");
    Ok(())
}

/// Cargo's target directory.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A command of the cargo that runs this program, with the workspace as its current directory.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// `--package` for each of `names`.
pub(crate) fn packages_arguments<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names.iter().flat_map(|name| ["--package", name]).collect()
}

/// Makes a release build of the monitor and returns its path.
pub(crate) fn build_monitor() -> PathBuf {
    rig::note("building vmm-bin (release)");
    driver::monitor_program().to_owned()
}

/// Returns an error that names the command if `status` isn't a success.
pub(crate) fn succeed(status: ExitStatus, command: &str) -> Result<(), Failure> {
    if status.success() { Ok(()) } else { Err(format!("`{command}` failed ({status})").into()) }
}
