//! Identifiers that only make sense on x86_64 appear only in that platform's directory; the rest of a crate uses neutral names, which
//! another architecture can define as well.

use std::collections::BTreeSet;

use super::circles::ROOTS;
use super::circles::tree::Tree;
use super::rules::{PLATFORM_CRATES, X86_WORDS};
use super::sources::packages;
use super::verdict::Verdict;
use crate::failure::Failure;

/// The start of a file's tests, its last item.
const TESTS: &str = "#[cfg(test)]\nmod tests";
/// The directory in which they are allowed.
const DIRECTORY: &str = "platform/x86_64/";

pub(super) fn check() -> Result<Verdict, Failure> {
    let mut problems = Vec::new();
    let mut outside = 0;
    for package in packages()?.into_iter().filter(|package| PLATFORM_CRATES.contains(&&package.name[..])) {
        let sources = package.sources()?;
        let files = sources.iter().map(|source| (source.path.as_str(), source.text.as_str())).collect();
        let tree = Tree::read(&files, ROOTS[0]).map_err(|problem| format!("{}: {problem}", package.name))?;
        // Files that aren't only for tests.
        let in_use: BTreeSet<&str> = tree.items().map(|(file, _)| file).collect();
        let is_outside = |path: &str| in_use.contains(path) && !path.contains(DIRECTORY);
        for source in sources.iter().filter(|source| is_outside(&source.path)) {
            outside += 1;
            problems.extend(named(&source.text).into_iter().map(|(line, word)| {
                format!("{}:{line}: {word} belongs in {DIRECTORY}", package.shown(&source.path))
            }));
        }
    }
    Ok(Verdict::from_problems(problems, || {
        format!("{outside} files of {} have no x86_64 identifiers", PLATFORM_CRATES.join(", "))
    }))
}

/// The x86_64 identifiers in the code before the tests, with the numbers of their lines, from 1.
fn named(text: &str) -> Vec<(usize, &str)> {
    let code = text.split(TESTS).next().unwrap_or_default();
    let lines = code.lines().enumerate();
    lines.flat_map(|(index, line)| words_of(line).map(move |word| (index + 1, word))).collect()
}

fn words_of(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    // Every second piece is a string literal.
    let pieces = code.split('"').step_by(2);
    let identifiers = pieces.flat_map(|piece| piece.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    identifiers.filter(|word| X86_WORDS.split(' ').any(|other| other == *word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_in_code_is_found_with_its_line() {
        assert_eq!(named("fn f() {\n    report.regs.rip\n}\n"), [(2, "regs"), (2, "rip")]);
    }

    #[test]
    fn register_in_comments_strings_and_tests_is_none() {
        let text = "// rip\nlet a = \"rip\"; // regs\n#[cfg(test)]\nmod tests { fn f() { rip } }\n";
        assert_eq!(named(text), []);
    }

    #[test]
    fn register_after_another_item_for_tests_is_found() {
        assert_eq!(named("#[cfg(test)]\nmod testing;\nfn f(rip: u64) {}\n"), [(3, "rip")]);
    }

    #[test]
    fn word_is_a_whole_identifier() {
        assert_eq!(named("let trip = stripe(rip_off);"), []);
    }
}
