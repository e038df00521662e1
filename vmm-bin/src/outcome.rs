//! How the program ends: one message, one exit code.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use vmm_config::ConfigError;
use vmm_machine::{Blame, Ending};

const INTERNAL: u8 = 1;
const USAGE: u8 = 2;
const BAD_CONFIG: u8 = 3;
const HOST_CANT: u8 = 4;
const GUEST_CRASHED: u8 = 5;
/// Added to the number of the signal that ended us.
const BY_SIGNAL: u8 = 128;
/// SIGPIPE: what a program that doesn't handle a closed output dies of.
const PIPE_SIGNAL: u8 = 13;

/// An end that isn't an error.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// What was asked for was printed.
    Done,
    /// The host isn't fit for virtual machines, as was printed.
    HostLacks,
    /// Nobody reads our output.
    OutputGone,
    /// The machine ran.
    Ended(Ending),
}

/// An error, with its exit code in mind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Machine(#[from] vmm_machine::Error),
    #[error("--log-file {}", path.display())]
    LogFile { path: PathBuf, source: io::Error },
    #[error("terminal")]
    Terminal(#[source] io::Error),
    #[error("standard output")]
    Stdout(#[source] io::Error),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Config(ConfigError::Flag { .. }) | Self::LogFile { .. } => USAGE,
            Self::Config(_) => BAD_CONFIG,
            Self::Machine(error) => match error.blame() {
                Blame::Config => BAD_CONFIG,
                Blame::Host => HOST_CANT,
                Blame::Monitor => INTERNAL,
            },
            Self::Terminal(_) | Self::Stdout(_) => INTERNAL,
        }
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

/// Says what there is to say and gives the exit code.
pub(crate) fn report(result: Result<Outcome, Failure>) -> ExitCode {
    let code = match result {
        Err(failure) => {
            say(&format!("error: {}", chain(&failure)));
            failure.code()
        }
        Ok(Outcome::HostLacks) => HOST_CANT,
        Ok(Outcome::OutputGone | Outcome::Ended(Ending::OutputGone)) => BY_SIGNAL + PIPE_SIGNAL,
        Ok(Outcome::Ended(ending @ Ending::Crashed(_))) => {
            say(&format!("error: {ending}"));
            GUEST_CRASHED
        }
        Ok(Outcome::Ended(Ending::Signal(signal))) => BY_SIGNAL.wrapping_add(signal as u8),
        Ok(Outcome::Done | Outcome::Ended(Ending::Guest(_) | Ending::Halted | Ending::Quit)) => 0,
    };
    ExitCode::from(code)
}

/// Says what clap has to say: help and version on standard output, a wrong flag on standard error.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // A reader that has gone needs no help.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

/// One message on standard error, if anybody listens.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
