//! Checks that cargo makes, and the check of the CI script.

use std::fs;
use std::process::Command;

use super::rules::ONE_VERSION;
use super::verdict::Verdict;
use crate::failure::Failure;
use crate::workspace::{cargo, root, succeed};

const CI_SCRIPT: &str = ".ci/run";
const CI_COMMAND: &str = "exec cargo xtask test";

pub(super) fn fmt() -> Result<Verdict, Failure> {
    passes(&mut cargo(&["fmt", "--all", "--check"]), "the workspace is formatted")
}

pub(super) fn clippy() -> Result<Verdict, Failure> {
    let mut command = cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    passes(&mut command, "no warnings")
}

pub(super) fn doc() -> Result<Verdict, Failure> {
    let mut command = cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
    passes(command.env("RUSTDOCFLAGS", "-D warnings"), "no warnings")
}

/// Two versions of a crate whose types are part of our crates' interfaces don't fit together, and the resulting errors are hard to
/// read.
pub(super) fn duplicates() -> Result<Verdict, Failure> {
    let output = cargo(&["tree", "--workspace", "--duplicates", "--depth=0", "--prefix=none"]).output()?;
    succeed(output.status, "cargo tree --duplicates")?;
    let problems = duplicates_in(&String::from_utf8_lossy(&output.stdout));
    Ok(Verdict::from_problems(problems, || format!("one version each of {}", ONE_VERSION.join(", "))))
}

/// Checks that CI runs exactly what developers run.
pub(super) fn ci_script() -> Result<Verdict, Failure> {
    let text = fs::read_to_string(root().join(CI_SCRIPT)).unwrap_or_default();
    let is_last = text.trim_end().lines().last() == Some(CI_COMMAND);
    let problems =
        if is_last { vec![] } else { vec![format!("{CI_SCRIPT}: it must end with `{CI_COMMAND}`")] };
    Ok(Verdict::from_problems(problems, || format!("{CI_SCRIPT} calls cargo xtask test")))
}

/// Passes if `command` succeeds; otherwise its output lists the problems.
pub(super) fn passes(command: &mut Command, summary: &str) -> Result<Verdict, Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(Verdict::Pass(summary.to_owned()));
    }
    let text = [output.stdout, output.stderr].concat();
    Ok(Verdict::Fail(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()))
}

fn duplicates_in(tree: &str) -> Vec<String> {
    let mut lines: Vec<&str> = tree.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    let is_ours = |line: &&str| line.split(' ').next().is_some_and(|name| ONE_VERSION.contains(&name));
    let found = lines.into_iter().filter(is_ours);
    found.map(|line| format!("{line}: there is another version in the tree (cargo tree -d)")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_that_crosses_borders_is_a_problem() {
        let found =
            duplicates_in("bitflags v1.3.2\nvm-memory v0.17.1\nvm-memory v0.18.0\nvm-memory v0.18.0\n");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn duplicate_that_stays_inside_is_fine() {
        assert!(duplicates_in("bitflags v1.3.2\nbitflags v2.11.0\n").is_empty());
    }
}
