//! Runs cargo-deny, which checks the dependencies against deny.toml.

use std::process::Command;

use super::cargo_checks::passes;
use super::verdict::Verdict;
use crate::failure::Failure;
use crate::tools;
use crate::workspace::root;

const VERSION: &str = "0.20.2";
/// All checks except advisories, which are fetched from the network: the result would change without a change here.
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

pub(super) fn check() -> Result<Verdict, Failure> {
    // Its default features are for advisories.
    let mut command = Command::new(tools::program("cargo-deny", VERSION, &["--no-default-features"])?);
    command.args(["--workspace", "check"]).args(CHECKS).current_dir(root());
    passes(&mut command, &format!("{} according to deny.toml; advisories aren't checked", CHECKS.join(", ")))
}
