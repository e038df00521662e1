//! The parts of a page, and what a part must have.

use crate::blocks::{Block, blocks};
use crate::command::{Command, commands};
use crate::quote::Quote;

/// Begins the task that a step ends with.
const EXERCISE: &str = "**Exercise.** ";
const SOLUTION: &str = "<details><summary>Solution</summary>\n";
const SOLUTION_END: &str = "</details>";

/// Commands that build, fetch or boot the rig. The reader is told how long before they start.
const SLOW: [&str; 5] =
    ["cargo build", "cargo xtask guests", "cargo xtask linux", "cargo xtask rig", "cargo xtask demo"];

/// A heading `## ` and what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The heading without its marks. Empty for what is before the first heading: the set-up.
    pub title: String,
    text: String,
}

impl Step {
    /// The set-up of a page, and its steps that have commands, in blocks or tables, or a number.
    pub fn all(page: &str) -> Vec<Self> {
        let mut parts = format!("\n{page}").split("\n## ").map(str::to_owned).collect::<Vec<_>>().into_iter();
        let set_up = Self { title: String::new(), text: parts.next().unwrap_or_default() };
        let steps = parts.map(|part| {
            let (title, text) = part.split_once('\n').unwrap_or((&part, ""));
            Self { title: title.to_owned(), text: text.to_owned() }
        });
        std::iter::once(set_up)
            .chain(steps.filter(|step| step.is_numbered() || step.text.contains("$ ")))
            .collect()
    }

    /// Whether it is a step of a course: its title begins with its number.
    pub fn is_numbered(&self) -> bool {
        self.title.starts_with(|first: char| first.is_ascii_digit())
    }

    /// In order.
    pub fn commands(&self) -> Vec<Command> {
        commands_of(&self.text)
    }

    /// In order.
    pub fn quotes(&self) -> Vec<Quote> {
        blocks(&self.text).iter().filter_map(Quote::of).collect()
    }

    /// The commands that are listed in a table, as code that begins with `$ `, and are part of none that is run.
    pub fn not_run(&self) -> Vec<String> {
        let commands = self.commands();
        let is_run = |listed: &String| commands.iter().any(|command| command.script.contains(listed));
        let rows = self.text.lines().filter(|line| line.starts_with('|'));
        rows.flat_map(listed).filter(|listed| !is_run(listed)).collect()
    }

    /// The commands before which the page doesn't say how many seconds or minutes they take.
    pub fn unannounced(&self) -> Vec<String> {
        let blocks = blocks(&self.text);
        let silent = blocks.iter().filter(|block| !announces_time(&block.before));
        let commands =
            silent.filter(|block| block.kind == "console").flat_map(|block| commands(&block.lines));
        let is_slow = |script: &String| SLOW.iter().any(|slow| script.contains(slow));
        commands.map(|command| command.script).filter(is_slow).collect()
    }

    /// Whether it has code, and one exercise at its end whose solution is run and prints something.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn teaches(&self) -> Result<(), &'static str> {
        if self.quotes().is_empty() {
            return Err("the step shows no code");
        }
        let Some((_, exercise)) = self.text.split_once(EXERCISE) else {
            return Err("the step has no exercise");
        };
        let Some((task, solution)) = exercise.split_once(SOLUTION) else {
            return Err("the exercise has no solution");
        };
        if task.contains("```") || exercise.contains(EXERCISE) || solution.contains(SOLUTION) {
            return Err("the step has more than one exercise, or commands between it and the solution");
        }
        let Some(solution) = solution.trim_end().strip_suffix(SOLUTION_END) else {
            return Err("the step doesn't end with the solution");
        };
        match commands_of(solution).last() {
            Some(last) if !last.expected.is_empty() => Ok(()),
            _ => Err("nothing shows that the solution is right: its last command prints nothing"),
        }
    }
}

fn commands_of(text: &str) -> Vec<Command> {
    let blocks = blocks(text).into_iter().filter(|block: &Block<'_>| block.kind == "console");
    blocks.flat_map(|block| commands(&block.lines)).collect()
}

fn announces_time(paragraph: &str) -> bool {
    ["second", "minute"].iter().any(|unit| paragraph.contains(unit))
}

/// The commands in a row of a table, in which a vertical bar is written as `\|`.
fn listed(row: &str) -> Vec<String> {
    let code = row.split('`').skip(1).step_by(2);
    code.filter_map(|code| code.strip_prefix("$ ")).map(|command| command.replace("\\|", "|")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXEMPLARY: &str = "\
## 1. One

```rust
// a.rs
a
```

**Exercise.** Do it.

<details><summary>Solution</summary>

```console
$ a
b
```

</details>
";

    fn step(page: &str) -> Step {
        Step::all(page).remove(1)
    }

    fn scripts(step: &Step) -> Vec<String> {
        step.commands().into_iter().map(|command| command.script).collect()
    }

    #[test]
    fn page_is_a_set_up_and_steps() {
        let page = "# T\n```console\n$ s\n```\n## One\n```console\n$ a\nx\n```\n### Not two\n## Text\nt\n\
            ## 2. Two\nt\n";
        let steps = Step::all(page);
        let titles: Vec<_> = steps.iter().map(|step| step.title.as_str()).collect();
        assert_eq!(titles, ["", "One", "2. Two"]);
        assert_eq!(steps.iter().map(scripts).collect::<Vec<_>>(), [vec!["s"], vec!["a"], vec![]]);
    }

    #[test]
    fn block_of_another_kind_is_no_command() {
        assert_eq!(step("## One\n```json\n$ a\n```\n").commands(), []);
    }

    #[test]
    fn command_of_a_table_that_no_block_runs_is_found() {
        let page = "## One\n| theirs | ours |\n|---|---|\n| `./a` | `$ b`, `$ c \\| d` |\n| `x` | `$ e` |\n\
            ```console\n$ b; c | d\n```\n";
        assert_eq!(step(page).not_run(), ["e"]);
    }

    #[test]
    fn slow_command_without_a_time_is_found() {
        let page = "## One\nTwo minutes:\n\n```console\n$ cargo build -p a\n```\nAt once:\n\n```console\n$ cargo xtask rig a\n```\n";
        assert_eq!(step(page).unannounced(), ["cargo xtask rig a"]);
    }

    #[test]
    fn step_with_code_exercise_and_solution_teaches() {
        assert_eq!(step(EXEMPLARY).teaches(), Ok(()));
    }

    #[test]
    fn step_lacks_what_is_removed_from_it() {
        let without = |part: &str| step(&EXEMPLARY.replacen(part, "", 1)).teaches().is_err();
        let parts = [
            "```rust\n// a.rs\na\n```\n",
            "**Exercise.** ",
            "<details><summary>Solution</summary>\n",
            "$ a\nb\n",
            "b\n",
            "</details>\n",
        ];
        assert_eq!(parts.map(without), [true; 6]);
    }

    #[test]
    fn step_with_two_exercises_is_refused() {
        let twice = format!("{EXEMPLARY}{}", EXEMPLARY.replace("## 1. One\n", ""));
        assert!(step(&twice).teaches().is_err());
    }
}
