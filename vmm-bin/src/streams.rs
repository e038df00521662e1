//! What the program itself prints: bounded queues, so that no reader who has stopped holds it up.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use vmm_hostio::terminal;
use vmm_machine::{Messages, is_stderr_protected};

/// Time that readers have for the last lines.
const PATIENCE: Duration = Duration::from_secs(1);

/// The queues.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    pub(crate) stderr: Messages,
    pub(crate) stdout: Messages,
    /// Of `--log-file`.
    pub(crate) log: Option<Messages>,
}

impl Streams {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { stderr: Messages::to_stderr()?, stdout: Messages::to_stdout()?, log: None })
    }

    /// Turns what is said away from standard error, if that leads into one of `inputs`, or into another file that mustn't be written:
    /// the message that a start is refused would damage it. To be called before anything is said.
    pub(crate) fn protect(&self, inputs: impl IntoIterator<Item = PathBuf>) {
        if !self.stderr.is_diverted() && is_stderr_protected(inputs) {
            self.stderr.divert_to_terminal();
        }
    }

    /// Says `text` on standard error in a line of its own. There is always room for it.
    pub(crate) fn report(&self, text: &str) {
        self.stderr.push_unbounded(&for_terminal(format!("{text}\n").as_bytes()));
    }

    /// Gives the readers a moment, one for all, to take what is left.
    pub(crate) fn flush(&self) {
        let until = Instant::now() + PATIENCE;
        let all = [Some(&self.stdout), self.log.as_ref(), Some(&self.stderr)];
        all.into_iter()
            .flatten()
            .for_each(|messages| messages.flush(until.saturating_duration_since(Instant::now())));
    }
}

/// Lines for standard error. A raw terminal doesn't return the carriage by itself.
pub(crate) fn for_terminal(lines: &[u8]) -> Cow<'_, [u8]> {
    if !terminal::is_raw() {
        return Cow::Borrowed(lines);
    }
    let ends = lines.split_inclusive(|&byte| byte == b'\n').flat_map(|line| match line.strip_suffix(b"\n") {
        Some(text) => [text, b"\r\n"],
        None => [line, b""],
    });
    Cow::Owned(ends.flatten().copied().collect())
}
