//! The commands of a `console` block.

/// A command, and what it should print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// One or more lines of shell.
    pub script: String,
    /// Lines, perhaps with wildcards.
    pub expected: Vec<String>,
}

/// Why the next line belongs to the command, too.
enum GoesOn<'a> {
    /// The last one ended in a backslash.
    Backslash,
    /// It is part of a here-document that this line ends.
    Until(&'a str),
}

pub(crate) fn commands(block: &[&str]) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut goes_on = None;
    for line in block {
        let started = line.strip_prefix("$ ").filter(|_| goes_on.is_none());
        match (started, commands.last_mut()) {
            (Some(script), _) => {
                commands.push(Command { script: script.to_owned(), ..Default::default() });
                goes_on = continuation(script);
            }
            (None, Some(command)) if goes_on.is_some() => {
                command.script += &format!("\n{line}");
                goes_on = match goes_on {
                    Some(GoesOn::Until(end)) if end != *line => Some(GoesOn::Until(end)),
                    Some(GoesOn::Until(_)) => None,
                    _ => continuation(line),
                };
            }
            (None, Some(command)) => command.expected.push((*line).to_owned()),
            (None, None) => panic!("a console block begins with output: {line:?}"),
        }
    }
    commands
}

fn continuation(line: &str) -> Option<GoesOn<'_>> {
    let word = line.split_once("<<'").and_then(|(_, rest)| rest.split_once('\''));
    match word {
        Some((end, _)) => Some(GoesOn::Until(end)),
        None => line.ends_with('\\').then_some(GoesOn::Backslash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str, expected: &[&str]) -> Command {
        Command {
            script: script.to_owned(),
            expected: expected.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn command_goes_on_after_a_backslash() {
        let expected = [command("a \\\nb", &["x"]), command("c", &[])];
        assert_eq!(commands(&["$ a \\", "b", "x", "$ c"]), expected);
    }

    #[test]
    fn command_goes_on_to_the_end_of_its_here_document() {
        let expected = [command("cat <<'END' >x\n$ a\n\\\nEND", &["x"]), command("c", &[])];
        assert_eq!(commands(&["$ cat <<'END' >x", "$ a", "\\", "END", "x", "$ c"]), expected);
    }
}
