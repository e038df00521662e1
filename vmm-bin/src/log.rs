//! The log: to standard error, also while the terminal is raw, or to a file.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use vmm_config::printable;
use vmm_machine::Messages;

use crate::args::Args;
use crate::finish::Failure;
use crate::streams::{self, Streams};

/// Starts of a guest whose lifecycle is logged, with -v. A guest can reset its machine without end.
const LOGGED_STARTS: u32 = 100;
/// Of the lifecycle of machines nothing more is logged.
static HAS_ENOUGH: AtomicBool = AtomicBool::new(false);

/// Starts the log as the flags ask, and returns it if it has a file. To be called when the inputs of the machine are open, none of
/// which the log may be; until then nothing is logged.
pub(crate) fn init(args: &Args, streams: &Streams) -> Result<Option<Messages>, Failure> {
    let level = match args.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_target(false);
    let Some(path) = &args.log_file else {
        let to = To { messages: streams.stderr.clone(), is_stderr: true };
        log.without_time().with_writer(to).init();
        return Ok(None);
    };
    let file = Messages::to_log(path).map_err(|source| Failure::LogFile { path: path.clone(), source })?;
    log.with_writer(To { messages: file.clone(), is_stderr: false }).init();
    Ok(Some(file))
}

/// The guest has reset its machine so many times, and a machine starts again.
pub(crate) fn restarted(count: u32) {
    if count == LOGGED_STARTS {
        tracing::info!(
            "the guest has reset its machine {count} times; only warnings and errors are logged from here on"
        );
        HAS_ENOUGH.store(true, Ordering::Relaxed);
    }
}

/// Where the log goes.
struct To {
    messages: Messages,
    /// Which may be the terminal.
    is_stderr: bool,
}

/// A line's way there, or to nowhere.
struct Line<'a>(Option<&'a To>);

impl<'a> MakeWriter<'a> for To {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(Some(self))
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Line<'a> {
        // It speaks of neither a device nor a file, at each reset of a guest whose disk is full or damaged. What concerns the
        // user is said by the device.
        if meta.target().starts_with("imago") {
            return Line(None);
        }
        let is_wanted = *meta.level() <= tracing::Level::WARN || !HAS_ENOUGH.load(Ordering::Relaxed);
        Line(is_wanted.then_some(self))
    }
}

/// tracing-subscriber writes each line whole.
impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(To { messages, is_stderr }) = self.0 else { return Ok(line.len()) };
        // A path in it may hold anything. Its end is ours.
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
        let to = To { messages: Messages::to_log(file.path()).unwrap(), is_stderr: false };
        Line(Some(&to)).write_all("virtio block at a\u{1b}[2J\nb\n".as_bytes()).unwrap();
        to.messages.flush(std::time::Duration::from_secs(10));
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "virtio block at a\\u{1b}[2J\\nb\n");
    }
}
