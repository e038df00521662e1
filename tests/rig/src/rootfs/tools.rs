//! Host programs that build images: found or installed, and run as if by root.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

use crate::error::{Error, Result};
use crate::packages;

/// Debian's default PATH for ordinary users lacks these directories.
const SYSTEM_DIRS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// `PATH` with the directories of the system's programs.
pub(super) fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SYSTEM_DIRS.map(PathBuf::from));
    // Fails if a directory contains a colon, which the elements of a split PATH don't.
    std::env::join_paths(dirs).unwrap_or(path)
}

/// The program `name`, installed from `package` if missing.
pub(super) fn program(name: &str, package: &str) -> Result<PathBuf> {
    if let Some(found) = find(name) {
        return Ok(found);
    }
    packages::install(&[package])?;
    find(name).ok_or_else(|| Error::ProgramMissing {
        program: name.to_owned(),
        remedy: format!("the package {package} is installed and has no such program"),
    })
}

/// `sh -e -c SCRIPT sh`, without the script's arguments. Our files appear as root's to it, and it may change
/// their owners: it runs as root if we do, otherwise under fakeroot, which also records owners and device
/// nodes.
pub(super) fn shell_as_root(script: &str) -> Result<Command> {
    let mut command = match geteuid().is_root() {
        true => Command::new("sh"),
        false => {
            let mut command = Command::new(program("fakeroot", "fakeroot")?);
            command.args(["--", "sh"]);
            command
        }
    };
    command.args(["-e", "-c", script, "sh"]).env("PATH", path());
    Ok(command)
}

fn find(name: &str) -> Option<PathBuf> {
    let path = path();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
