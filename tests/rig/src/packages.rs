//! Debian packages: installs missing programs (as root, or through sudo), and unpacks packages to a
//! directory, which doesn't need root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::geteuid;

use crate::command::output_of;
use crate::error::{At, Error, Result};
use crate::progress::{note, step};

/// Installs those of `packages` that are missing. Needs root or sudo only if one is.
pub fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    require_apt(&list)?;
    if missing.iter().any(|package| !has_candidate(package)) {
        update_lists(&list)?;
    }
    step(&format!("installing {list}"), || {
        // Old package lists may contain versions that the mirror no longer has.
        apt_install(&missing).or_else(|_| {
            update_lists(&list)?;
            apt_install(&missing)
        })
    })
}

/// Downloads `package` in the version that apt would install and unpacks its files below `into`. Doesn't need root.
pub fn unpack(package: &str, into: &Path) -> Result<()> {
    require_apt(package)?;
    fs::create_dir_all(into).at("create", into)?;
    let download = into.join(".deb");
    fs::create_dir_all(&download).at("create", &download)?;
    step(&format!("fetching {package}"), || {
        output_of(
            // Without the sandbox user, for which our directory would have to be writable.
            Command::new("apt-get")
                .args(["download", "-q", "-o", "APT::Sandbox::User=root", package])
                .current_dir(&download),
        )
    })?;
    let deb = only_file_in(&download)?;
    output_of(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(into))?;
    fs::remove_dir_all(&download).at("remove", &download)
}

/// Names of packages in the apt cache that match the regular expression `names`. Refreshes empty package
/// lists first, if permitted.
pub fn search(names: &str) -> Result<Vec<String>> {
    require_apt(names)?;
    let found = search_cache(names)?;
    if !found.is_empty() {
        return Ok(found);
    }
    // Not an error here: the caller reports the pattern without a match.
    if let Err(error) = update_lists(names) {
        note(&format!("the package lists stay as they are: {error}"));
    }
    search_cache(names)
}

fn search_cache(names: &str) -> Result<Vec<String>> {
    let lines = output_of(Command::new("apt-cache").args(["search", "--names-only", names]))?;
    Ok(lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn is_installed(package: &str) -> bool {
    output_of(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

fn has_candidate(package: &str) -> bool {
    output_of(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))
        .is_ok_and(|policy| policy.lines().any(is_candidate))
}

fn is_candidate(line: &str) -> bool {
    line.trim_start().strip_prefix("Candidate:").is_some_and(|version| version.trim() != "(none)")
}

/// Refreshes the package lists, once per process.
fn update_lists(needed_for: &str) -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_some() {
        return Ok(());
    }
    step("apt-get update", || output_of(as_root("apt-get", needed_for)?.args(["update", "-qq"])))?;
    DONE.get_or_init(|| ());
    Ok(())
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let mut command = as_root("apt-get", &packages.join(" "))?;
    output_of(command.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages)).map(drop)
}

/// `program` with DEBIAN_FRONTEND set, through sudo unless we're root. `needed_for` appears in the error.
fn as_root(program: &str, needed_for: &str) -> Result<Command> {
    const FRONTEND: &str = "DEBIAN_FRONTEND=noninteractive";
    let mut command = Command::new("env");
    if !geteuid().is_root() {
        if find_program("sudo").is_none() {
            return Err(Error::ProgramMissing {
                program: needed_for.to_owned(),
                remedy: format!(
                    "run `apt-get update && apt-get install {needed_for}` as root (there is no sudo here)"
                ),
            });
        }
        command = Command::new("sudo");
        command.arg("env");
    }
    command.args([FRONTEND, program]);
    Ok(command)
}

fn require_apt(needed_for: &str) -> Result<()> {
    match find_program("apt-get") {
        Some(_) => Ok(()),
        None => Err(Error::ProgramMissing {
            program: needed_for.to_owned(),
            remedy: "this host has no apt-get; install it in your system's own way".to_owned(),
        }),
    }
}

/// The first executable called `name` on the PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}

fn only_file_in(dir: &Path) -> Result<PathBuf> {
    let mut files = fs::read_dir(dir).at("list", dir)?.flatten().map(|entry| entry.path());
    files.next().ok_or_else(|| Error::format(dir.display().to_string(), "apt-get download left no file here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidate_version_counts() {
        assert!(is_candidate("  Candidate: 1:7.2+dfsg-7"));
    }

    #[test]
    fn candidate_none_does_not_count() {
        assert!(!is_candidate("  Candidate: (none)"));
    }
}
