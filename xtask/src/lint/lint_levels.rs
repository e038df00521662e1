//! Every crate inherits the workspace's lints, and the limits on function length and on the number of arguments have no exceptions.

use super::rules::WITHOUT_EXCEPTION;
use super::sources::packages;
use super::verdict::Verdict;
use crate::failure::Failure;

/// The lines of a manifest that make `[workspace.lints]` apply. Cargo doesn't require them.
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
                    .push(format!("{place}: {lint} has no exceptions: split the function, or define a type"));
            }
        }
    }
    Ok(Verdict::from_problems(problems, || {
        format!(
            "{} crates inherit the workspace's; {} without exceptions",
            packages.len(),
            WITHOUT_EXCEPTION.join(" and ")
        )
    }))
}

/// The numbers of the lines, from 1, that name a lint without exceptions, and the lint.
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
