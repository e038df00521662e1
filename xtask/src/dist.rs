//! `cargo xtask dist`: builds the release files.
//!
//! ```text
//! target/dist/vmm-bin/                       bin/vmm-bin, share/man, share/bash-completion, ...: the layout of /usr
//! target/dist/vmm-bin-VERSION-x86_64.tar.gz  these files as a tarball
//! target/dist/vmm-bin_VERSION_amd64.deb      these files as a Debian package
//! target/dist/SHA256SUMS                     the checksums of both
//! ```
//! Builds are reproducible, wherever the commit is checked out: timestamps are that of the commit (or `SOURCE_DATE_EPOCH`), and build
//! paths are mapped to fixed ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rig::note;

use crate::failure::Failure;
use crate::tools;
use crate::workspace::{cargo, root, succeed, target_dir};

const NAME: &str = "vmm-bin";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const TARGET: &str = "x86_64-unknown-linux-gnu";
const CARGO_DEB: &str = "3.8.0";
/// The AppArmor profile's name in share/vmm-bin. The package's postinst copies it from there.
const PROFILE: &str = "apparmor-profile";
/// Installed in share/doc.
const DOCUMENTS: [&str; 6] =
    ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "LICENSE-APACHE", "LICENSE-MIT"];

pub(crate) fn run() -> Result<ExitCode, Failure> {
    let dist = build()?;
    note(&format!(
        "in {}: {}",
        dist.directory.display(),
        [&dist.tarball, &dist.package].map(|path| file_name(path)).join(", ")
    ));
    Ok(ExitCode::SUCCESS)
}

/// Paths of the release files.
#[derive(Debug)]
pub(crate) struct Dist {
    directory: PathBuf,
    tarball: PathBuf,
    package: PathBuf,
}

fn build() -> Result<Dist, Failure> {
    let directory = root().join("target/dist");
    let tree = directory.join(NAME);
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let epoch = epoch()?;
    let program = build_program(&directory, &epoch)?;
    install(&program, &tree.join("bin").join(NAME))?;
    describe(&tree, &program)?;
    let profile = tree.join("share").join(NAME).join(PROFILE);
    install(&root().join("resources/apparmor").join(NAME), &profile)?;
    for name in DOCUMENTS {
        install(&root().join(name), &tree.join("share/doc").join(NAME).join(name))?;
    }
    let tarball = directory.join(format!("{NAME}-{VERSION}-x86_64.tar.gz"));
    pack(&directory, &tarball, &epoch)?;
    let package = directory.join(format!("{NAME}_{VERSION}_amd64.deb"));
    pack_deb(&package, &epoch)?;
    write_checksums(&directory, &[&tarball, &package])?;
    Ok(Dist { directory, tarball, package })
}

/// The timestamp of all files, in seconds since 1970: `SOURCE_DATE_EPOCH`, or the time of the commit.
fn epoch() -> Result<String, Failure> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    let time = output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()))?;
    Ok(time.trim().to_owned())
}

/// Builds the static program without paths of this host in it. It has its own target directory, because its flags differ from those
/// of other builds.
fn build_program(directory: &Path, epoch: &str) -> Result<PathBuf, Failure> {
    note("building the program; this takes a few minutes");
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .ok_or("CARGO_HOME and HOME aren't set")?;
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=/vmm", root().display()),
        format!("--remap-path-prefix={}=/cargo", home.display()),
    ];
    let target = directory.join("build");
    let mut build = cargo(&["build", "--release", "--locked", "--package", NAME, "--target", TARGET]);
    // Encoded, because a path may contain spaces.
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    build.env("CARGO_TARGET_DIR", &target).env("SOURCE_DATE_EPOCH", epoch);
    succeed(build.status()?, "cargo build")?;
    Ok(target.join(TARGET).join("release").join(NAME))
}

/// Generates the man page, the completions and the config's schema, and puts them into the tree.
fn describe(tree: &Path, program: &Path) -> Result<(), Failure> {
    let made = target_dir().join("dist/described");
    fs::create_dir_all(&made)?;
    let mut describe = cargo(&["run", "--quiet", "--package", NAME, "--example", "describe", "--"]);
    succeed(describe.arg(&made).status()?, "cargo run --example describe")?;
    let share = tree.join("share");
    for entry in fs::read_dir(&made)? {
        let path = entry?.path();
        let name = file_name(&path);
        let place = match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("1") => share.join("man/man1").join(&name),
            Some("bash") => share.join("bash-completion/completions").join(NAME),
            Some("fish") => share.join("fish/vendor_completions.d").join(&name),
            _ => share.join("zsh/vendor-completions").join(&name),
        };
        install(&path, &place)?;
    }
    let schema = output(Command::new(program).arg("schema"))?;
    let place = share.join(NAME);
    fs::create_dir_all(&place)?;
    fs::write(place.join("config.schema.json"), schema)?;
    Ok(())
}

fn install(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to.parent().expect("it has a directory"))?;
    fs::copy(from, to).map_err(|error| format!("{}: {error}", from.display()))?;
    Ok(())
}

/// Packs the tree with sorted names, fixed owners and one timestamp (reproducible-builds.org, "Archive metadata").
fn pack(directory: &Path, tarball: &Path, epoch: &str) -> Result<(), Failure> {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+rw,go+r,go-w"]);
    tar.arg(format!("--mtime=@{epoch}")).args(["--use-compress-program", "gzip -9n", "--create", "--file"]);
    succeed(tar.arg(tarball).arg(NAME).current_dir(directory).status()?, "tar")
}

fn pack_deb(package: &Path, epoch: &str) -> Result<(), Failure> {
    let mut deb = Command::new(tools::program("cargo-deb", CARGO_DEB, &[])?);
    deb.args(["--quiet", "--package", NAME, "--no-build", "--no-strip", "--target", TARGET, "--output"])
        .arg(package);
    deb.current_dir(root()).env("SOURCE_DATE_EPOCH", epoch).stdout(Stdio::null());
    succeed(deb.status()?, "cargo deb")
}

/// Writes SHA256SUMS in the format of `sha256sum --check`.
fn write_checksums(directory: &Path, files: &[&Path]) -> Result<(), Failure> {
    let sums = output(
        Command::new("sha256sum").args(files.iter().map(|path| file_name(path))).current_dir(directory),
    )?;
    fs::write(directory.join("SHA256SUMS"), sums)?;
    Ok(())
}

fn output(command: &mut Command) -> Result<String, Failure> {
    let output = command.stderr(Stdio::inherit()).output()?;
    succeed(output.status, &format!("{command:?}"))?;
    Ok(String::from_utf8(output.stdout)?)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Debian has no KVM, no AppArmor, and no libraries besides the essential ones.
    #[test]
    #[ignore = "builds the release and a Debian, which takes minutes"]
    fn package_is_installed_in_a_fresh_debian_and_the_program_runs() {
        let dist = build().unwrap();
        let command = "vmm-bin --version; vmm-bin doctor; echo \"code $?\"; ls /etc/apparmor.d/vmm-bin; \
                       ls /usr/share/man/man1/vmm-bin.1.gz /usr/share/vmm-bin/apparmor-profile";
        let printed = rig::try_package(&dist.package, command).unwrap();
        assert!(printed.starts_with(&format!("vmm-bin {VERSION}\n")), "{printed}");
        assert!(printed.contains("/dev/kvm"), "{printed}");
        assert!(printed.contains("code 4\n") || printed.contains("code 0\n"), "{printed}");
        assert!(printed.contains("sandbox: system calls: "), "{printed}");
        let files = "\n/usr/share/man/man1/vmm-bin.1.gz\n/usr/share/vmm-bin/apparmor-profile\n";
        assert!(printed.ends_with(files), "{printed}");
        assert!(!printed.contains("/etc/apparmor.d/vmm-bin\n"), "{printed}");
        let sums =
            Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(&dist.directory).output();
        assert!(sums.unwrap().status.success());
    }
}
