//! Every crate has the workspace's lints, and the length of functions and of lists of arguments has no exceptions.

use super::rules::WITHOUT_EXCEPTION;
use super::sources::packages;
use super::verdict::Verdict;
use crate::failure::Failure;

/// What makes `[workspace.lints]` hold for a crate, which cargo doesn't ask for.
const INHERITED: &str = "[lints]\nworkspace = true";

pub(super) fn check() -> Result<Verdict, Failure> {
    let packages = packages()?;
    let mut problems = Vec::new();
    for package in &packages {
        if !package.manifest()?.contains(INHERITED) {
            problems.push(format!("{}: add [lints] workspace = true", package.shown("Cargo.toml")));
        }
        for source in package.sources()? {
            for (line, lint) in exceptions(&source.text) {
                let place = format!("{}:{line}", package.shown(&source.path));
                problems
                    .push(format!("{place}: {lint} holds everywhere: divide the function, or make a type"));
            }
        }
    }
    Ok(Verdict::from_problems(problems, || {
        format!(
            "{} crates have the workspace's; {} without exception",
            packages.len(),
            WITHOUT_EXCEPTION.join(" and ")
        )
    }))
}

/// The lines, counted from 1, whose code names a lint that has no exceptions, and the lint.
fn exceptions(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let named = WITHOUT_EXCEPTION.into_iter().filter(|lint| code.contains(&format!("clippy::{lint}")));
        found.extend(named.map(|lint| (index + 1, lint)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exception_in_an_attribute_is_found() {
        let text = format!("\n#[allow(clippy::{})]\nfn f() {{}}\n", WITHOUT_EXCEPTION[0]);
        assert_eq!(exceptions(&text), [(2, WITHOUT_EXCEPTION[0])]);
    }

    #[test]
    fn exception_for_another_lint_is_not() {
        assert!(exceptions("#[allow(clippy::len_without_is_empty)]\n// clippy::too_many_lines\n").is_empty());
    }
}
