//! Where the workspace is, and cargo as a command.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::failure::Failure;

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The cargo that runs us, in the workspace's directory.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Builds the monitor for release and returns the path of the program.
pub(crate) fn build_monitor() -> PathBuf {
    rig::note("building vmm-bin for release");
    driver::monitor_program().to_owned()
}

/// Turns a failed status into an error that names the command.
pub(crate) fn succeed(status: ExitStatus, command: &str) -> Result<(), Failure> {
    if status.success() { Ok(()) } else { Err(format!("`{command}` failed ({status})").into()) }
}
