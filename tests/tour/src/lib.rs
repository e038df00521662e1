#![forbid(unsafe_code)]

//! A Markdown page whose commands are run, and whose outputs are compared with what they print.
//!
//! A block of kind `console` holds commands and what they print, on both streams:
//!
//! ~~~text
//! ```console
//! $ echo one; echo two
//! one
//! [..]o
//! ```
//! ~~~
//!
//! In an expected line, `[..]` stands for any text; a line that is only `...` for any lines. A command goes on over lines
//! that end in a backslash. The commands of a step, which is what a heading `## ` begins, are one shell's: `$?` and variables
//! live on from one to the next.

/// What a heading begins, with its commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The heading without its marks.
    pub title: String,
    /// In order.
    pub commands: Vec<Command>,
}

/// A command, and what it should print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// One or more lines of shell.
    pub script: String,
    /// Lines, perhaps with wildcards.
    pub expected: Vec<String>,
}

/// The steps of a page that have commands.
pub fn steps(page: &str) -> Vec<Step> {
    let mut steps = vec![Step::default()];
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            steps.push(Step { title: title.to_owned(), commands: Vec::new() });
        } else if line == "```console" {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            steps.last_mut().expect("there is one from the start").commands.extend(commands(&block));
        }
    }
    steps.retain(|step| !step.commands.is_empty());
    steps
}

fn commands(block: &[&str]) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut goes_on = false;
    for line in block {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(script), _) => {
                commands.push(Command { script: script.to_owned(), ..Default::default() });
                goes_on = script.ends_with('\\');
            }
            (None, Some(command)) if goes_on => {
                command.script += &format!("\n{line}");
                goes_on = line.ends_with('\\');
            }
            (None, Some(command)) => command.expected.push((*line).to_owned()),
            (None, None) => panic!("a console block begins with output: {line:?}"),
        }
    }
    commands
}

/// Whether `printed` is what `expected` describes.
pub fn agrees(expected: &[String], printed: &[&str]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "..." => {
            (0..=printed.len()).any(|skipped| agrees(rest, &printed[skipped..]))
        }
        (Some((first, rest)), Some((line, others))) => line_agrees(first, line) && agrees(rest, others),
        _ => false,
    }
}

fn line_agrees(expected: &str, line: &str) -> bool {
    match expected.split_once("[..]") {
        None => expected == line,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|skipped| line_agrees(after, &rest[skipped..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn page_of_two_steps_gives_their_commands() {
        let page =
            "# T\n## One\ntext\n```console\n$ a \\\nb\nx\n$ c\n```\n## Empty\n## Two\n```console\n$ d\n```\n";
        let command =
            |script: &str, expected| Command { script: script.to_owned(), expected: lines(expected) };
        let step = |title: &str, commands| Step { title: title.to_owned(), commands };
        let expected = [
            step("One", vec![command("a \\\nb", "x"), command("c", "")]),
            step("Two", vec![command("d", "")]),
        ];
        assert_eq!(steps(page), expected);
    }

    #[test]
    fn block_of_another_kind_is_no_command() {
        assert_eq!(steps("## One\n```json\n$ a\n```\n"), []);
    }

    #[test]
    fn output_that_differs_disagrees() {
        assert!(agrees(&lines("a\nb"), &["a", "b"]));
        assert!(!agrees(&lines("a\nb"), &["a"]));
        assert!(!agrees(&lines("a"), &["a", "b"]));
        assert!(!agrees(&lines("a"), &["b"]));
    }

    #[test]
    fn wildcard_in_a_line_is_any_text_and_nothing_else() {
        assert!(agrees(&lines("x [..] ms of [..]"), &["x 17 ms of 20"]));
        assert!(!agrees(&lines("x [..] ms"), &["x 17 s"]));
    }

    #[test]
    fn wildcard_line_is_any_lines() {
        assert!(agrees(&lines("a\n...\nd"), &["a", "b", "c", "d"]));
        assert!(agrees(&lines("a\n..."), &["a"]));
        assert!(!agrees(&lines("a\n...\nd"), &["a", "b"]));
    }
}
