//! cargo-deny's judgement of the dependencies by deny.toml. It is built when it is first needed, and kept.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rig::note;

use super::cargo_checks::passes;
use super::verdict::Verdict;
use crate::failure::Failure;
use crate::workspace::{cargo, root, succeed, target_dir};

const VERSION: &str = "0.20.2";
/// All but advisories, which are fetched from the network: what passed yesterday would fail today without a change of ours.
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

pub(super) fn check() -> Result<Verdict, Failure> {
    let mut command = Command::new(program()?);
    command.args(["--workspace", "check"]).args(CHECKS).current_dir(root());
    passes(&mut command, &format!("{} as deny.toml has them; advisories aren't looked at", CHECKS.join(", ")))
}

/// cargo-deny of this version, in the target directory. One that is installed elsewhere may judge differently.
fn program() -> Result<PathBuf, Failure> {
    let tools = target_dir().join("tools");
    let home = tools.join(format!("cargo-deny-{VERSION}"));
    let program = home.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    note(&format!("building cargo-deny {VERSION}, which takes minutes, once"));
    let build = tools.join("build");
    // Unoptimised it is built in half the time, and still runs for seconds only. Its features are for advisories.
    let mut install = cargo(&["install", "--quiet", "--locked", "--debug", "--no-default-features"]);
    install.args(["--version", VERSION, "cargo-deny", "--root"]).arg(&home).env("CARGO_TARGET_DIR", &build);
    succeed(install.status()?, "cargo install cargo-deny")?;
    fs::remove_dir_all(&build).map_err(|error| format!("can't remove {}: {error}", build.display()))?;
    Ok(program)
}
