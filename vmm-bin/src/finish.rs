//! The end of the program: one message and one exit code.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nix::errno::Errno;
use vmm_config::{ConfigError, ConfigText, FlagFields, printable};
use vmm_control::ClientError;
use vmm_machine::{Blame, Ending, Run, RunError};

use crate::args::Args;
use crate::bare::BareError;
use crate::ctl_error::CtlError;
use crate::streams::Streams;

const INTERNAL: u8 = 1;
/// `ctl`: the machine didn't carry out the command.
const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const BAD_CONFIG: u8 = 3;
const HOST_CANT: u8 = 4;

/// How the program finished without an error.
#[derive(Debug)]
pub(crate) enum Finished {
    /// It printed what was requested.
    Printed,
    /// `doctor` printed at least one problem of the host.
    HostLacks,
    /// A machine ran, or the start was interrupted.
    Ran(Run),
}

impl Finished {
    /// An end without exit statistics: no machine ran.
    pub(crate) fn ended(ending: Ending) -> Self {
        Self::Ran(Run { ending, exits: None, losses: Vec::new() })
    }
}

/// An error that ends the program; it determines the exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Bare(#[from] BareError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Snapshot(#[from] vmm_snapshot::Error),
    #[error("{message}")]
    Machine { source: vmm_machine::Error, message: String, losses: Box<[String]> },
    #[error("--log-file {}", path.display())]
    LogFile { path: PathBuf, source: io::Error },
    #[error("{place}{0}", place = if .0.raw_os_error().is_some() { "standard streams: " } else { "" })]
    Stream(io::Error),
    #[error("--metrics {}", path.display())]
    Metrics { path: PathBuf, source: io::Error },
    #[error(
        "a background job can't read from its terminal: start it in the foreground, select another console with --serial pty, or \
         redirect standard input with </dev/null"
    )]
    Background,
    #[error(
        "--paused: Ctrl-A p starts the guest, but its console isn't on a terminal; remove --paused, or run it on a terminal"
    )]
    NoKeys,
    #[error("standard output")]
    Stdout(#[source] io::Error),
    #[error("control {}", path.display())]
    Control { path: PathBuf, source: io::Error },
    #[error("--set {0}")]
    Set(String),
    #[error("restore: {0}")]
    SnapshotPlace(String),
    #[error(transparent)]
    Ctl(#[from] CtlError),
}

/// Where the fields of a config were set.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// The config file, if there is one.
    pub(crate) file: Option<PathBuf>,
    pub(crate) text: ConfigText,
    /// The fields that were set by flags.
    pub(crate) flags: FlagFields,
}

impl Origin {
    /// The text of an error in which fields set by flags are replaced by the flags' names. If the error is about a field of the file,
    /// the file's name and the field's position precede it.
    pub(crate) fn locate(&self, ErrorText { message, field }: ErrorText) -> String {
        let message = self.flags.rename(&message);
        let field = field.filter(|field| !self.flags.sets(field));
        let Some((file, field)) = self.file.as_ref().zip(field) else { return message };
        let at = self.text.locate(&field).map_or_else(String::new, |at| format!("{at}:"));
        format!("{}:{at} {message}", file.display())
    }
}

/// The text of an error of the machine, to which the [origin](Origin::locate) of the config can be added.
#[derive(Debug)]
pub(crate) struct ErrorText {
    message: String,
    /// JSON path of the field that it is about.
    field: Option<String>,
}

impl Failure {
    /// Adds the origin of the config to an error of the machine.
    pub(crate) fn of_config(self, config: &Origin) -> Self {
        match self.text() {
            Some(text) => self.with_message(config.locate(text)),
            None => self,
        }
    }

    /// The text of an error of the machine.
    pub(crate) fn text(&self) -> Option<ErrorText> {
        let Self::Machine { source, message, .. } = self else { return None };
        Some(ErrorText { message: message.clone(), field: source.field() })
    }

    /// Replaces the text of an error of the machine.
    pub(crate) fn with_message(self, message: String) -> Self {
        match self {
            Self::Machine { source, losses, .. } => Self::Machine { source, message, losses },
            other => other,
        }
    }

    /// The error and its causes, and the limit to raise if the host has run out of something, in one line.
    fn message(&self) -> String {
        let message = match self {
            Self::Machine { message, .. } => message.clone(),
            other => chain(other),
        };
        message + self.shortage().map_or("", remedy)
    }

    /// What the guest may have lost.
    pub(crate) fn losses(&self) -> &[String] {
        match self {
            Self::Machine { losses, .. } => losses,
            _ => &[],
        }
    }

    /// The exit code: it tells who can fix the error.
    fn code(&self) -> u8 {
        if self.shortage().is_some() {
            return HOST_CANT;
        }
        match self {
            Self::Bare(_)
            | Self::Background
            | Self::NoKeys
            | Self::Set(_)
            | Self::SnapshotPlace(_)
            | Self::Config(ConfigError::Flag { .. })
            | Self::LogFile { .. }
            | Self::Stream(_)
            | Self::Metrics { .. } => USAGE,
            Self::Config(_) | Self::Snapshot(_) => BAD_CONFIG,
            Self::Machine { source, .. } => match source.blame() {
                Blame::Config => BAD_CONFIG,
                Blame::Host => HOST_CANT,
                Blame::Monitor => INTERNAL,
            },
            Self::Stdout(_) => INTERNAL,
            Self::Control { .. } => BAD_CONFIG,
            Self::Ctl(CtlError::Usage(_) | CtlError::NewSnapshot(_)) => USAGE,
            Self::Ctl(CtlError::Client(ClientError::Refused(_) | ClientError::NoResponse(_))) => REFUSED,
            Self::Ctl(_) => HOST_CANT,
        }
    }
}

impl Failure {
    /// The error that says that the host has run out of descriptors, threads or memory, whatever they were needed for.
    fn shortage(&self) -> Option<Errno> {
        if let Self::Stream(error) = self {
            return shortage(error);
        }
        let mut cause: Option<&dyn Error> = Some(self);
        while let Some(error) = cause {
            let own = error.downcast_ref::<Errno>().copied().filter(|errno| SHORTAGES.contains(errno));
            let found = error.downcast_ref::<io::Error>().and_then(shortage).or(own);
            if found.is_some() {
                return found;
            }
            cause = error.source();
        }
        None
    }
}

/// Errors that mean that the host has run out of a resource.
const SHORTAGES: [Errno; 4] = [Errno::EMFILE, Errno::ENFILE, Errno::EAGAIN, Errno::ENOMEM];

fn shortage(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw).filter(|errno| SHORTAGES.contains(errno))
}

/// What to raise, after the message.
fn remedy(shortage: Errno) -> &'static str {
    match shortage {
        Errno::EMFILE => "; raise the limit of open files (ulimit -n)",
        Errno::ENFILE => "; raise the host's limit of open files (sysctl fs.file-max)",
        Errno::EAGAIN => "; raise the limit of threads (ulimit -u, or pids.max of the cgroup)",
        _ => "",
    }
}

impl From<vmm_machine::Error> for Failure {
    fn from(source: vmm_machine::Error) -> Self {
        let message = chain(&source);
        Self::Machine { source, message, losses: Box::default() }
    }
}

impl From<RunError> for Failure {
    fn from(failed: RunError) -> Self {
        let RunError { error: source, losses } = failed;
        let message = chain(&source);
        Self::Machine { source, message, losses: losses.into() }
    }
}

/// The messages of an error and its causes, without repetitions.
pub(crate) fn chain(error: &dyn Error) -> String {
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

/// Reports the result, waits briefly for the readers of the output, and returns the exit code and why it is that.
pub(crate) fn report(result: Result<Finished, Failure>, streams: &Streams) -> (u8, String) {
    let end = match result {
        Err(failure) => {
            // Paths and values in the message may contain anything; the message must stay one line.
            let message = printable(&failure.message()).into_owned();
            streams.report(&format!("error: {message}"));
            report_losses(failure.losses(), streams);
            (failure.code(), message)
        }
        Ok(Finished::HostLacks) => (HOST_CANT, String::new()),
        Ok(Finished::Printed) => (0, String::new()),
        Ok(Finished::Ran(run)) => (report_run(&run, streams), run.ending.to_string()),
    };
    streams.flush();
    end
}

/// Reports a machine's exits and ending, as far as they are to be reported, and returns the exit code.
fn report_run(run: &Run, streams: &Streams) -> u8 {
    if let Some(exits) = &run.exits {
        streams.report(exits.to_string().trim_end());
    }
    if run.ending.is_error() {
        streams.report(&format!("error: {}", run.ending));
    }
    report_losses(&run.losses, streams);
    run.exit_code()
}

/// Reports what the guest may have lost, whatever the exit code.
fn report_losses(losses: &[String], streams: &Streams) {
    for loss in losses {
        streams.report(&format!("error: {}", printable(loss)));
    }
}

/// Prints clap's message: help and version on standard output, a usage error on standard error.
pub(crate) fn usage(error: clap::Error, streams: &Streams) -> ExitCode {
    // clap quotes the arguments unescaped, so parse escaped ones for the message.
    let typed = std::env::args_os().map(|word| printable(&word.to_string_lossy()).into_owned());
    let error = Args::try_parse_from(typed).err().unwrap_or(error);
    if error.use_stderr() && streams.stderr.is_diverted() {
        streams.report(error.render().to_string().trim_end());
        streams.flush();
    } else {
        // An error means that nobody reads it any more.
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

/// Reports that there are too few descriptors or threads even for [`Streams`].
pub(crate) fn without_streams(error: &io::Error) -> ExitCode {
    let remedy = shortage(error).map_or("", remedy);
    eprintln!(
        "error: can't create the eventfds and threads of standard output and standard error: {error}{remedy}"
    );
    ExitCode::from(HOST_CANT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_without_a_descriptor_for_it_is_the_hosts_fault() {
        let error = vmm_machine::Error::Terminal(Errno::EMFILE.into());
        let failure = Failure::from(error);
        assert_eq!(failure.code(), HOST_CANT);
        let message = "the modes of the terminal at standard input can't be changed: Too many open files (os error 24); raise the \
                       limit of open files (ulimit -n)";
        assert_eq!(failure.message(), message);
    }

    #[test]
    fn lack_of_threads_names_their_limits() {
        let error = vmm_machine::Error::Host { what: "thread of a device", source: Errno::EAGAIN.into() };
        let failure = Failure::from(error);
        assert_eq!(failure.code(), HOST_CANT);
        let message = "thread of a device: Resource temporarily unavailable (os error 11); raise the limit of threads (ulimit -u, or \
                       pids.max of the cgroup)";
        assert_eq!(failure.message(), message);
    }

    /// Nothing that a user can raise.
    #[test]
    fn lack_of_memory_has_no_remedy() {
        let failure = Failure::Stdout(Errno::ENOMEM.into());
        assert_eq!(failure.message(), "standard output: Cannot allocate memory (os error 12)");
    }
}
