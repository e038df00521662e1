//! The log: to standard error, also while the terminal is raw, or to a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use tracing_subscriber::filter::LevelFilter;
use vmm_machine::Messages;

use crate::args::Args;
use crate::outcome::Failure;
use crate::streams::{self, Streams};

/// Starts the log as the flags ask.
pub(crate) fn init(args: &Args, streams: &mut Streams) -> Result<(), Failure> {
    let level = match args.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_target(false);
    match &args.log_file {
        None => {
            let stderr = streams.stderr.clone();
            log.without_time().with_writer(move || Stderr(stderr.clone())).init();
        }
        Some(path) => {
            let failed = |source| Failure::LogFile { path: path.clone(), source };
            // O_NONBLOCK: a FIFO without a reader is an error instead of a wait.
            let file =
                File::options().create(true).append(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
            let file = file.and_then(Messages::to_file).map_err(failed)?;
            streams.log = Some(file.clone());
            log.with_writer(move || LogFile(file.clone())).init();
        }
    }
    Ok(())
}

/// Standard error, which may be the terminal.
struct Stderr(Messages);

/// The file of `--log-file`.
struct LogFile(Messages);

/// tracing-subscriber writes each line whole.
impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.say(&streams::for_terminal(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.say(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
