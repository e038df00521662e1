//! Unsafe code is only in the files listed in the rules; every other crate forbids it.

use super::rules::{Unsafe, rule_of, unknown};
use super::sources::{Package, Source, packages};
use super::verdict::Verdict;
use crate::failure::Failure;

const FORBID: &str = "#![forbid(unsafe_code)]";
const ROOTS: [&str; 2] = ["src/lib.rs", "src/main.rs"];

pub(super) fn check() -> Result<Verdict, Failure> {
    let mut problems = Vec::new();
    let mut allowed = 0;
    for package in packages()? {
        let sources = package.sources()?;
        match rule_of(&package.name).map(|rule| &rule.unsafe_code) {
            None => problems.push(unknown(&package.name)),
            Some(Unsafe::Forbidden) => problems.extend(missing_forbid(&package, &sources)),
            Some(Unsafe::In(files)) => {
                allowed += files.len();
                problems.extend(outside(&package, &sources, files));
            }
        }
    }
    Ok(Verdict::from_problems(problems, || {
        format!("only in {allowed} listed files, forbidden in all other crates")
    }))
}

/// Roots of the package without the attribute. Integration tests and examples aren't checked: they are separate crates, but only use
/// the public interface.
fn missing_forbid(package: &Package, sources: &[Source]) -> Vec<String> {
    let roots = sources.iter().filter(|source| ROOTS.contains(&source.path.as_str()));
    let without = roots.filter(|source| !source.text.lines().any(|line| line.trim() == FORBID));
    without.map(|source| format!("{}: add {FORBID}", package.shown(&source.path))).collect()
}

fn outside(package: &Package, sources: &[Source], files: &[&str]) -> Vec<String> {
    let unlisted = sources.iter().filter(|source| !files.contains(&source.path.as_str()));
    let mut problems = Vec::new();
    for source in unlisted {
        if let Some(line) = first_unsafe_line(&source.text) {
            let place = format!("{}:{line}", package.shown(&source.path));
            problems
                .push(format!("{place}: unsafe code outside the files listed in xtask/src/lint/rules.rs"));
        }
    }
    problems
}

/// The number of the first line, from 1, that has the keyword outside comments.
fn first_unsafe_line(text: &str) -> Option<usize> {
    let has_keyword = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        // Whole words only: `unsafe_code` isn't one.
        code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    };
    text.lines().position(has_keyword).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_block_is_found() {
        assert_eq!(first_unsafe_line("fn f() {\n    unsafe { g() }\n}"), Some(2));
    }

    #[test]
    fn unsafe_in_a_comment_or_a_longer_word_is_not() {
        assert_eq!(first_unsafe_line("// unsafe\n#![deny(unsafe_op_in_unsafe_fn)]"), None);
    }
}
