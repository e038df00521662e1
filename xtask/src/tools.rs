//! Tools that cargo builds when they are first needed, and which are kept in the target directory: of a version that is pinned,
//! since one that is installed elsewhere may behave differently.

use std::fs;
use std::path::PathBuf;

use rig::note;

use crate::failure::Failure;
use crate::workspace::{cargo, succeed, target_dir};

/// The program `name` of that version. `features` are arguments such as `--no-default-features`.
pub(crate) fn program(name: &str, version: &str, features: &[&str]) -> Result<PathBuf, Failure> {
    let tools = target_dir().join("tools");
    let home = tools.join(format!("{name}-{version}"));
    let program = home.join("bin").join(name);
    if program.exists() {
        return Ok(program);
    }
    note(&format!("building {name} {version}, which takes minutes, once"));
    let build = tools.join("build");
    // Unoptimised it is built in half the time, and runs for seconds only.
    let mut install = cargo(&["install", "--quiet", "--locked", "--debug"]);
    install
        .args(features)
        .args(["--version", version, name, "--root"])
        .arg(&home)
        .env("CARGO_TARGET_DIR", &build);
    succeed(install.status()?, &format!("cargo install {name}"))?;
    fs::remove_dir_all(&build).map_err(|error| format!("can't remove {}: {error}", build.display()))?;
    Ok(program)
}
