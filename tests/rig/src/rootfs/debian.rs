//! A minimal Debian, built by mmdebstrap from this host's package sources; and files of packages without a
//! system.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

use super::kind::{ROOT_PASSWORD, part_of};
use super::tools;
use crate::command::output_of;
use crate::error::{At, Error, Result};
use crate::packages;
use crate::progress::step;

/// Hook that runs with the new root as its argument when all packages are installed.
const SETUP: &str = include_str!("../../../../resources/rootfs/debian-setup");

/// systemd as Debian starts it. Its serial getty waits for a udev event of the device; its logind, which
/// handles the power button, requires dbus. The last two are a kernel and the initramfs that Debian makes for it.
const PACKAGES: &str = "systemd-sysv,udev,dbus,login,linux-image-cloud-amd64,initramfs-tools";

/// Unused in a guest, and a third of the files.
const LEFT_OUT: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*"];

/// Our own inputs of the result. Package versions aren't included: an image isn't rebuilt every day.
pub(crate) const RECIPE: [&str; 7] =
    [SETUP, PACKAGES, LEFT_OUT[0], LEFT_OUT[1], LEFT_OUT[2], LEFT_OUT[3], ROOT_PASSWORD];

/// Settings of the host's apt that may be required to reach and authenticate its sources.
const APT_OPTIONS: [&str; 4] =
    ["Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date"];

/// Substitutes for root in mmdebstrap: a user namespace with the user's id range from /etc/subuid (uidmap),
/// or two preloaded libraries.
const WITHOUT_ROOT: [&str; 4] = ["mmdebstrap", "uidmap", "fakechroot", "fakeroot"];

const SOURCES: &str = "/etc/apt/sources.list";
const SOURCES_DIR: &str = "/etc/apt/sources.list.d";

/// Creates the archive `tar` of the whole system atomically. Needs the network, and half a minute.
pub(crate) fn build_tar(tar: &Path) -> Result<()> {
    let mut command = mmdebstrap("minbase", PACKAGES)?;
    command.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    command.arg(format!("--customize-hook=PASSWORD='{}'\n{SETUP}", ROOT_PASSWORD));
    bootstrap("building a minimal Debian (mmdebstrap)", command, tar)
}

/// Copies kernel and initramfs from the archive `tar` of the whole system to the directory `dir`, as `vmlinuz` and `initrd.img`.
/// `scratch` is an empty directory.
pub(crate) fn copy_boot_files(tar: &Path, dir: &Path, scratch: &Path) -> Result<()> {
    let mut unpack = Command::new("tar");
    unpack.args(["-x", "--no-same-owner", "--wildcards", "-f"]).arg(tar).arg("-C").arg(scratch);
    step("unpacking Debian's kernel and initramfs", || {
        output_of(unpack.args(["./boot/vmlinuz-*", "./boot/initrd.img-*"]))
    })?;
    let boot = scratch.join("boot");
    fs::create_dir_all(dir).at("create", dir)?;
    for entry in fs::read_dir(&boot).at("list", &boot)? {
        let path = entry.at("list", &boot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some((kind, _release)) = name.split_once('-') {
            fs::copy(&path, dir.join(kind)).at("copy", &path)?;
        }
    }
    Ok(())
}

/// Creates the archive `tar` of the files of `packages` and their dependencies. Nothing is configured or run.
pub(super) fn fetch_tar(packages: &str, tar: &Path) -> Result<()> {
    bootstrap(&format!("fetching {packages} (mmdebstrap)"), mmdebstrap("extract", packages)?, tar)
}

/// Installs the Debian package `package` into a fresh Debian with only essential packages, runs the shell command
/// `command` there and returns its output. Needs the network, and half a minute.
///
/// # Errors
/// The system can't be built, the package can't be installed, or the command fails.
pub fn try_package(package: &Path, command: &str) -> Result<String> {
    let output = part_of(package);
    let mut mmdebstrap = mmdebstrap("essential", "dpkg")?;
    mmdebstrap.arg(format!("--customize-hook=copy-in '{}' /root", package.display()));
    let script = format!("dpkg --install /root/*.deb >&2 && {{ {command}; }}");
    let hook = format!("--customize-hook=chroot \"$1\" sh -c '{script}' >'{}'", output.display());
    // The system itself isn't kept.
    mmdebstrap.arg(hook).arg("").arg("/dev/null").args(sources()?);
    let done = step("trying the package in a fresh Debian (mmdebstrap)", || output_of(&mut mmdebstrap));
    let printed = done.and_then(|_| fs::read_to_string(&output).at("read", &output));
    let _ = fs::remove_file(&output);
    printed
}

/// The part of the command common to all systems.
fn mmdebstrap(variant: &str, packages: &str) -> Result<Command> {
    if !geteuid().is_root() {
        packages::install(&WITHOUT_ROOT)?;
    }
    let mut command = Command::new(tools::program("mmdebstrap", "mmdebstrap")?);
    command.env("PATH", tools::path());
    command.args(["--quiet", "--mode=auto", "--format=tar"]);
    command.arg(format!("--variant={variant}")).arg(format!("--include={packages}"));
    command.args(apt_options()?.iter().map(|option| format!("--aptopt={option}")));
    Ok(command)
}

/// As [`fetch_tar`], from another suite of the mirror that this host uses.
pub(super) fn fetch_tar_from(suite: &str, packages: &str, tar: &Path) -> Result<()> {
    let mut command = mmdebstrap("extract", packages)?;
    // A mirror may lag behind: what it has is signed all the same.
    command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    let what = format!("fetching {packages} of {suite} (mmdebstrap)");
    bootstrap_from(&what, command, suite, tar, &[mirror()?.into()])
}

/// Runs the command into `tar`, with this host's sources.
fn bootstrap(what: &str, command: Command, tar: &Path) -> Result<()> {
    let sources: Vec<_> = sources()?.into_iter().map(PathBuf::into_os_string).collect();
    // No suite: the sources contain theirs.
    bootstrap_from(what, command, "", tar, &sources)
}

/// The mirror of Debian that this host's package lists come from.
fn mirror() -> Result<String> {
    let targets = ["--format", "$(SITE)", "Created-By: Packages", "Origin: Debian", "Label: Debian"];
    let sites = output_of(Command::new("apt-get").arg("indextargets").args(targets))?;
    let site = sites.lines().next().map(str::to_owned);
    site.ok_or_else(|| Error::format("the apt configuration", "no lists of Debian: run `apt-get update`"))
}

fn bootstrap_from(
    what: &str,
    mut command: Command,
    suite: &str,
    tar: &Path,
    sources: &[OsString],
) -> Result<()> {
    let part = part_of(tar);
    command.arg(suite).arg(&part).args(sources);
    let made = step(what, || output_of(&mut command)).and_then(|_| fs::rename(&part, tar).at("create", tar));
    if made.is_err() {
        let _ = fs::remove_file(&part);
    }
    made
}

/// The files that name this host's package sources.
fn sources() -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = match fs::read_dir(SOURCES_DIR) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| is_sources(path)).collect(),
        Err(_) => Vec::new(),
    };
    files.push(SOURCES.into());
    files.retain(|path| fs::read_to_string(path).is_ok_and(|text| has_source(&text)));
    files.sort();
    if files.is_empty() {
        return Err(Error::format(
            "the apt configuration",
            format!("no sources in {SOURCES} and {SOURCES_DIR}"),
        ));
    }
    Ok(files)
}

/// File names that apt accepts (sources.list(5)).
fn is_sources(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
}

/// Whether a file contains an enabled source, in either of the two formats.
fn has_source(text: &str) -> bool {
    text.lines()
        .any(|line| line.starts_with("deb ") || line.starts_with("deb\t") || line.starts_with("URIs:"))
}

/// The host's values of [`APT_OPTIONS`], as lines of a configuration file.
fn apt_options() -> Result<Vec<String>> {
    let lines = output_of(
        Command::new("apt-config").args(["dump", "--no-empty", "--format", "%f \"%v\";%n"]).args(APT_OPTIONS),
    )?;
    Ok(lines.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_both_formats_count() {
        assert!(has_source("# mine\ndeb http://mirror.example/debian stable main\n"));
        assert!(has_source("Types: deb\nURIs: http://mirror.example/debian\n"));
    }

    #[test]
    fn sources_comments_alone_do_not_count() {
        assert!(!has_source("# See /etc/apt/sources.list.d/debian.sources\n"));
    }

    #[test]
    fn sources_other_files_are_left_out() {
        assert!(!is_sources(Path::new("/etc/apt/sources.list.d/old.list.save")));
    }
}
