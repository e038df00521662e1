//! The commands of a page that isn't a course.

use crate::blocks::blocks;
use crate::command::{Command, commands};

/// All commands of a page: those of `console` blocks with what they print, and the lines of `sh` blocks, without comments.
pub fn documented(page: &str) -> Vec<Command> {
    let mut all = Vec::new();
    for block in blocks(page) {
        match block.kind {
            "console" if block.lines.first().is_some_and(|line| line.starts_with("$ ")) => {
                all.extend(commands(&block.lines));
            }
            "sh" => all.extend(block.lines.iter().filter_map(|line| script(line))),
            _ => {}
        }
    }
    all
}

fn script(line: &str) -> Option<Command> {
    let script = line.split(" #").next().unwrap_or_default().trim_end();
    let is_command = !script.is_empty() && !script.starts_with([' ', '#']);
    is_command.then(|| Command { script: script.to_owned(), expected: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_both_kinds_of_blocks_in_order() {
        let page = "```sh\n# first\na  # comment\n\n   # more\n```\n\n```console\n$ b\nx\n```\n\n```console\n~ # guest\n```\n";
        let command = |script: &str, expected: &[&str]| Command {
            script: script.to_owned(),
            expected: expected.iter().map(|line| (*line).to_owned()).collect(),
        };
        assert_eq!(documented(page), [command("a", &[]), command("b", &["x"])]);
    }
}
