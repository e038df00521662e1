//! The program's own output: bounded queues, so that a reader that has stopped can't block the program.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use vmm_hostio::terminal;
use vmm_machine::{Messages, is_stderr_protected};

/// How long the program waits at its end for readers to take the last lines.
const PATIENCE: Duration = Duration::from_secs(1);

/// The queues of standard output, standard error and the log file. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    pub(crate) stderr: Messages,
    pub(crate) stdout: Messages,
    /// The file of `--log-file`.
    pub(crate) log: Option<Messages>,
}

impl Streams {
    /// # Errors
    /// The host is out of file descriptors or threads.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { stderr: Messages::to_stderr()?, stdout: Messages::to_stdout()?, log: None })
    }

    /// Diverts messages from standard error to the terminal if standard error is one of `inputs`, or another file that must not be
    /// written: an error message would damage it. Call it before anything is written.
    pub(crate) fn protect(&self, inputs: impl IntoIterator<Item = PathBuf>) {
        if !self.stderr.is_diverted() && is_stderr_protected(inputs) {
            self.stderr.divert_to_terminal();
        }
    }

    /// Writes `text` as a line to standard error, even if the queue is full.
    pub(crate) fn report(&self, text: &str) {
        self.stderr.push_unbounded(&for_terminal(format!("{text}\n").as_bytes()));
    }

    /// Waits until everything is written, for at most [`PATIENCE`] in total.
    pub(crate) fn flush(&self) {
        let until = Instant::now() + PATIENCE;
        let all = [Some(&self.stdout), self.log.as_ref(), Some(&self.stderr)];
        all.into_iter()
            .flatten()
            .for_each(|messages| messages.flush(until.saturating_duration_since(Instant::now())));
    }
}

/// `lines` with the line ends that standard error needs: a terminal in raw mode needs carriage returns.
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
