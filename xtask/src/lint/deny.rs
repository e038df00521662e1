//! cargo-deny's judgement of the dependencies by deny.toml.

use std::process::Command;

use super::cargo_checks::passes;
use super::verdict::Verdict;
use crate::failure::Failure;
use crate::tools;
use crate::workspace::root;

const VERSION: &str = "0.20.2";
/// All but advisories, which are fetched from the network: what passed yesterday would fail today without a change of ours.
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

pub(super) fn check() -> Result<Verdict, Failure> {
    // Its features are for advisories.
    let mut command = Command::new(tools::program("cargo-deny", VERSION, &["--no-default-features"])?);
    command.args(["--workspace", "check"]).args(CHECKS).current_dir(root());
    passes(&mut command, &format!("{} as deny.toml has them; advisories aren't looked at", CHECKS.join(", ")))
}
