//! Runs a host program and converts failures to errors that quote its output.

use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Number of last lines of standard error in messages, because the end contains the reason.
const STDERR_LINES: usize = 12;

/// Runs `command` with stdin closed and returns its standard output.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let line = render(command);
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|source| Error::ProgramMissing {
        remedy: format!("can't run it ({source}); install it or put it on the PATH"),
        program,
    })?;
    if !output.status.success() {
        return Err(Error::CommandFailed {
            command: line,
            status: output.status.to_string(),
            stderr: last_lines(&String::from_utf8_lossy(&output.stderr), STDERR_LINES),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last `count` lines of `text`, without trailing white space.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn render(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
