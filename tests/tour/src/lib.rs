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
//! that end in a backslash. The commands of a step, which is what a heading `## ` begins, are one shell's: `$?`, variables and
//! the directory live on from one to the next.
//!
//! A table may list commands too, as code that begins with `$ `. Each must be part of a command of the same step, so that it is
//! run: [`Step::not_run`].

/// What a heading begins, with its commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The heading without its marks.
    pub title: String,
    /// In order.
    pub commands: Vec<Command>,
    /// The commands in its tables.
    pub listed: Vec<String>,
}

impl Step {
    /// The commands that are listed in a table and are part of none that is run.
    pub fn not_run(&self) -> Vec<&str> {
        let is_run = |listed: &str| self.commands.iter().any(|command| command.script.contains(listed));
        self.listed.iter().map(String::as_str).filter(|listed| !is_run(listed)).collect()
    }
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
            steps.push(Step { title: title.to_owned(), ..Step::default() });
        } else if line == "```console" {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            steps.last_mut().expect("there is one from the start").commands.extend(commands(&block));
        } else if line.starts_with('|') {
            steps.last_mut().expect("there is one from the start").listed.extend(listed(line));
        }
    }
    steps.retain(|step| !step.commands.is_empty() || !step.listed.is_empty());
    steps
}

/// The commands in a row of a table, in which a vertical bar is written as `\|`.
fn listed(row: &str) -> Vec<String> {
    let code = row.split('`').skip(1).step_by(2);
    code.filter_map(|code| code.strip_prefix("$ ")).map(|command| command.replace("\\|", "|")).collect()
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
        let step = |title: &str, commands| Step { title: title.to_owned(), commands, listed: Vec::new() };
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
    fn command_of_a_table_that_no_block_runs_is_found() {
        let page = "## One\n| theirs | ours |\n|---|---|\n| `./a` | `$ b`, `$ c \\| d` |\n| `x` | `$ e` |\n\
            ```console\n$ b; c | d\n```\n";
        assert_eq!(steps(page)[0].not_run(), ["e"]);
    }

    #[test]
    fn step_with_a_table_and_without_a_block_is_a_step() {
        assert_eq!(steps("## One\n| `./a` | `$ b` |\n")[0].not_run(), ["b"]);
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
