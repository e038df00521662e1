//! Lists long files and rejects very long ones. Tests at the end of a file don't count.

use super::rules::{LONG_FILE, TOO_LONG_FILE};
use super::sources::packages;
use super::verdict::Verdict;
use crate::failure::Failure;

pub(super) fn check() -> Result<Verdict, Failure> {
    let mut problems = Vec::new();
    let mut long = Vec::new();
    let mut files = 0;
    for package in packages()? {
        for source in package.sources()? {
            files += 1;
            let len = len_without_tests(&source.text);
            let file = package.shown(&source.path);
            if len > TOO_LONG_FILE {
                problems.push(format!("{file}: {len} lines, at most {TOO_LONG_FILE} are allowed: split it"));
            } else if len > LONG_FILE {
                long.push(format!("{file} ({len})"));
            }
        }
    }
    Ok(Verdict::from_problems(problems, || match long.is_empty() {
        true => format!("{files} files, none over {LONG_FILE} lines"),
        false => format!("{files} files, over {LONG_FILE} lines: {}", long.join(", ")),
    }))
}

fn len_without_tests(text: &str) -> usize {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_tests_do_not_count() {
        assert_eq!(len_without_tests("use a;\n\nfn f() {}\n#[cfg(test)]\nmod tests {}\n"), 3);
    }
}
