//! `cargo xtask lint`: checks of the workspace's rules, so that reviewers needn't make them. Each check prints a line.

mod arch_fence;
mod cargo_checks;
mod circles;
mod deny;
mod features;
mod layers;
mod length;
mod lint_levels;
mod names;
mod platform;
mod publish;
mod rules;
mod sources;
mod unsafe_code;
mod verdict;

use std::process::ExitCode;

use self::verdict::Verdict;
use crate::failure::Failure;

type Check = fn() -> Result<Verdict, Failure>;

/// All checks, the quick ones first.
const CHECKS: [(&str, Check); 16] = [
    ("layers", layers::check),
    ("unsafe code", unsafe_code::check),
    ("architecture fence", arch_fence::check),
    ("platform", platform::check),
    ("circles", circles::check),
    ("names", names::check),
    ("file length", length::check),
    ("lint levels", lint_levels::check),
    ("fmt", cargo_checks::fmt),
    ("duplicates", cargo_checks::duplicates),
    ("deny", deny::check),
    ("publish", publish::check),
    ("clippy", cargo_checks::clippy),
    ("features", features::check),
    ("doc", cargo_checks::doc),
    ("ci", cargo_checks::ci_script),
];

/// Runs every check, even if an earlier one has failed.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    let mut failed = 0;
    for (name, check) in CHECKS {
        match check()? {
            Verdict::Pass(summary) => println!("pass  {name}: {summary}"),
            Verdict::Fail(problems) => {
                failed += 1;
                println!("FAIL  {name}:");
                problems.iter().for_each(|problem| println!("      {problem}"));
            }
        }
    }
    if failed > 0 {
        println!("{failed} of {} checks failed", CHECKS.len());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
