//! The log: to standard error, also while the terminal is raw, or to a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use tracing_subscriber::filter::LevelFilter;

use crate::args::Args;
use crate::outcome::Failure;
use crate::tty;

/// Starts the log as the flags ask.
pub(crate) fn init(args: &Args) -> Result<(), Failure> {
    let level = match args.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_target(false);
    match &args.log_file {
        None => log.without_time().with_writer(|| Stderr).init(),
        Some(path) => {
            // For its user alone: what devices say in it comes from the guest.
            let file = File::options().create(true).append(true).mode(0o600).open(path);
            let file = file.map_err(|source| Failure::LogFile { path: path.clone(), source })?;
            log.with_writer(Mutex::new(file)).init();
        }
    }
    Ok(())
}

/// Standard error. A raw terminal doesn't return the carriage by itself.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !tty::is_raw() {
            return io::stderr().write(bytes);
        }
        let mut stderr = io::stderr().lock();
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            stderr.write_all(text)?;
            stderr.write_all(if text.len() < line.len() { b"\r\n" } else { b"" })?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
