//! How the program ends: one message, one exit code.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nix::errno::Errno;
use vmm_config::{ConfigError, FlagFields, printable};
use vmm_machine::{Blame, Ending, Run};

use crate::args::Args;
use crate::bare::BareError;
use crate::streams::Streams;

const INTERNAL: u8 = 1;
const USAGE: u8 = 2;
const BAD_CONFIG: u8 = 3;
const HOST_CANT: u8 = 4;

/// What the program did, if it didn't fail.
#[derive(Debug)]
pub(crate) enum Finished {
    /// What was asked for was printed.
    Printed,
    /// The host isn't fit for virtual machines, as was printed.
    HostLacks,
    /// A machine ran, or what was before it was ended.
    Ran(Run),
}

impl Finished {
    /// Without a machine that ran.
    pub(crate) fn ended(ending: Ending) -> Self {
        Self::Ran(Run { ending, exits: None })
    }
}

/// An error, with its exit code in mind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Bare(#[from] BareError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{source}")]
    Machine { source: vmm_machine::Error, config: Box<Origin> },
    #[error("--log-file {}", path.display())]
    LogFile { path: PathBuf, source: io::Error },
    #[error("{place}{0}", place = if .0.raw_os_error().is_some() { "standard streams: " } else { "" })]
    Stream(io::Error),
    #[error("--metrics {}", path.display())]
    Metrics { path: PathBuf, source: io::Error },
    #[error(
        "standard input is a terminal that this job doesn't have, since it runs in the background: start it in the foreground, \
         or give the guest another console with --serial pty, or no input with </dev/null"
    )]
    Background,
    #[error(
        "--paused: without a console on a terminal nothing could start the guest: leave it out, or give the guest the terminal"
    )]
    NoKeys,
    #[error("standard output")]
    Stdout(#[source] io::Error),
}

/// Where the fields of a config came from.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// The config file.
    pub(crate) file: Option<PathBuf>,
    /// The fields that flags set.
    pub(crate) flags: FlagFields,
}

impl Origin {
    /// `message`, of `error`, with the flags that set fields in place of the fields. A field of the file gets its position there.
    fn locate(&self, error: &vmm_machine::Error, message: &str) -> String {
        let message = self.flags.rename(message);
        let field = error.field().filter(|field| !self.flags.sets(field));
        let Some((file, field)) = self.file.as_ref().zip(field) else { return message };
        let at = vmm_config::locate(file, &field).map_or_else(String::new, |at| format!("{at}:"));
        format!("{}:{at} {message}", file.display())
    }
}

impl Failure {
    /// An error of the machine in the words of this config.
    pub(crate) fn of_config(self, config: Origin) -> Self {
        match self {
            Self::Machine { source, .. } => Self::Machine { source, config: Box::new(config) },
            other => other,
        }
    }

    /// It and its causes.
    fn message(&self) -> String {
        match self {
            Self::Machine { source, config } => config.locate(source, &chain(self)),
            other => chain(other),
        }
    }

    fn code(&self) -> u8 {
        if self.is_shortage() {
            return HOST_CANT;
        }
        match self {
            Self::Bare(_)
            | Self::Background
            | Self::NoKeys
            | Self::Config(ConfigError::Flag { .. })
            | Self::LogFile { .. }
            | Self::Stream(_)
            | Self::Metrics { .. } => USAGE,
            Self::Config(_) => BAD_CONFIG,
            Self::Machine { source, .. } => match source.blame() {
                Blame::Config => BAD_CONFIG,
                Blame::Host => HOST_CANT,
                Blame::Monitor => INTERNAL,
            },
            Self::Stdout(_) => INTERNAL,
        }
    }
}

impl Failure {
    /// Whether the host is out of descriptors, threads or memory, whatever they were for.
    fn is_shortage(&self) -> bool {
        if let Self::Stream(error) = self {
            return is_shortage(error);
        }
        let mut cause: Option<&dyn Error> = Some(self);
        while let Some(error) = cause {
            let is_io = error.downcast_ref::<io::Error>().is_some_and(is_shortage);
            if is_io || error.downcast_ref::<Errno>().is_some_and(|errno| SHORTAGES.contains(errno)) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// What the host says if it is out of something.
const SHORTAGES: [Errno; 4] = [Errno::EMFILE, Errno::ENFILE, Errno::EAGAIN, Errno::ENOMEM];

fn is_shortage(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&Errno::from_raw(code)))
}

impl From<vmm_machine::Error> for Failure {
    fn from(source: vmm_machine::Error) -> Self {
        Self::Machine { source, config: Box::default() }
    }
}

/// An error and its causes, each said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.ends_with(&inner) {
            text += &format!(": {inner}");
        }
        cause = error.source();
    }
    text
}

/// Says what there is to say, waits a moment for its reader, and gives the exit code.
pub(crate) fn report(result: Result<Finished, Failure>, streams: &Streams) -> ExitCode {
    let code = match result {
        Err(failure) => {
            // One line, whatever is in the paths and values that it repeats.
            streams.report(&format!("error: {}", printable(&failure.message())));
            if let Some(log) = &streams.log {
                log.remove_unused_log();
            }
            failure.code()
        }
        Ok(Finished::HostLacks) => HOST_CANT,
        Ok(Finished::Printed) => 0,
        Ok(Finished::Ran(run)) => tell(&run, streams),
    };
    streams.flush();
    ExitCode::from(code)
}

/// Says what is to be said of a machine's run and gives its exit code.
fn tell(run: &Run, streams: &Streams) -> u8 {
    if let Some(exits) = &run.exits {
        streams.report(exits.to_string().trim_end());
    }
    if run.ending.is_error() {
        streams.report(&format!("error: {}", run.ending));
    }
    run.ending.exit_code()
}

/// Says what clap has to say: help and version on standard output, a wrong flag on standard error.
pub(crate) fn usage(error: clap::Error, streams: &Streams) -> ExitCode {
    // What was typed is repeated in the message, and clap repeats it as it is.
    let typed = std::env::args_os().map(|word| printable(&word.to_string_lossy()).into_owned());
    let error = Args::try_parse_from(typed).err().unwrap_or(error);
    if error.use_stderr() && streams.stderr.is_diverted() {
        streams.report(error.render().to_string().trim_end());
        streams.flush();
    } else {
        // A reader that has gone needs no help.
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

/// There are no descriptors left, not even to report that in the usual way.
pub(crate) fn without_streams(error: &io::Error) -> ExitCode {
    eprintln!("error: event descriptors of the program's own output: {error}");
    ExitCode::from(HOST_CANT)
}
