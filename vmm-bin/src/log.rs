//! The log, written to standard error (also while the terminal is raw) or to a file.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use vmm_config::printable;
use vmm_machine::Messages;

use crate::args::Args;
use crate::finish::Failure;
use crate::streams::{self, Streams};

/// Number of starts of a guest whose lifecycle is logged with -v: a guest can reset its machine forever.
const LOGGED_STARTS: u32 = 100;
/// Set after [`LOGGED_STARTS`] resets: only warnings and errors are logged from then on.
static IS_LIFECYCLE_MUTED: AtomicBool = AtomicBool::new(false);

/// Starts the log according to the flags, and returns it if it is a file. Nothing is logged before. Call it when the machine's inputs
/// are open and locked, because the log must not be one of them.
pub(crate) fn init(args: &Args, streams: &Streams) -> Result<Option<Messages>, Failure> {
    let level = match args.run().verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_target(false);
    let Some(path) = &args.run().log_file else {
        let to = LogTarget { messages: streams.stderr.clone(), is_stderr: true };
        log.without_time().with_writer(to).init();
        return Ok(None);
    };
    let file = Messages::to_log(path).map_err(|source| Failure::LogFile { path: path.clone(), source })?;
    log.with_writer(LogTarget { messages: file.clone(), is_stderr: false }).init();
    Ok(Some(file))
}

/// Called when a machine starts again after the guest's reset number `count`.
pub(crate) fn restarted(count: u32) {
    if count == LOGGED_STARTS {
        tracing::info!(
            "the guest has reset its machine {count} times; only warnings and errors are logged from here on"
        );
        IS_LIFECYCLE_MUTED.store(true, Ordering::Relaxed);
    }
}

/// The destination of the log.
struct LogTarget {
    messages: Messages,
    /// Standard error may be a terminal in raw mode, which needs carriage returns.
    is_stderr: bool,
}

/// Writes one line to the log; `None` discards it.
struct LineWriter<'a>(Option<&'a LogTarget>);

impl<'a> MakeWriter<'a> for LogTarget {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(Some(self))
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> LineWriter<'a> {
        // imago's messages name neither device nor file, and a guest can trigger them by resets with a full or damaged disk. The
        // device itself reports what users need to know.
        if meta.target().starts_with("imago") {
            return LineWriter(None);
        }
        let is_wanted = *meta.level() <= tracing::Level::WARN || !IS_LIFECYCLE_MUTED.load(Ordering::Relaxed);
        LineWriter(is_wanted.then_some(self))
    }
}

/// tracing-subscriber passes one complete line per call.
impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(LogTarget { messages, is_stderr }) = self.0 else { return Ok(line.len()) };
        // Paths in the text may contain control characters. Only the final newline is the log's own.
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
        let text = format!("{}\n", printable(&text));
        messages.push(&if *is_stderr {
            streams::for_terminal(text.as_bytes())
        } else {
            text.as_bytes().into()
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_with_a_name_that_drives_a_terminal_is_one_line_of_text() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let to = LogTarget { messages: Messages::to_log(file.path()).unwrap(), is_stderr: false };
        LineWriter(Some(&to)).write_all("virtio block at a\u{1b}[2J\nb\n".as_bytes()).unwrap();
        to.messages.flush(std::time::Duration::from_secs(10));
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "virtio block at a\\u{1b}[2J\\nb\n");
    }
}
