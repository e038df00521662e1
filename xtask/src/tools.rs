//! Tools that cargo builds when they are first needed, and that are kept in the target directory. Versions are pinned, since an
//! installed version may behave differently.

use std::fs;
use std::path::PathBuf;

use rig::note;

use crate::failure::Failure;
use crate::workspace::{cargo, succeed, target_dir};

/// The path of the program `name` in this version, which is built if necessary. `features` are arguments such as
/// `--no-default-features`.
pub(crate) fn program(name: &str, version: &str, features: &[&str]) -> Result<PathBuf, Failure> {
    let tools = target_dir().join("tools");
    let home = tools.join(format!("{name}-{version}"));
    let program = home.join("bin").join(name);
    if program.exists() {
        return Ok(program);
    }
    note(&format!("building {name} {version}; this takes a few minutes, once"));
    let build = tools.join("build");
    // An unoptimised build takes half the time, and the tool runs only for seconds.
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
