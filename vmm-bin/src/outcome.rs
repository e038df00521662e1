//! How the program ends: one message, one exit code.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use vmm_config::ConfigError;
use vmm_machine::doctor::{SOFTWARE_KVM, has_hardware_virtualization};
use vmm_machine::{Crash, CrashCause, Ending, Power};

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
#[derive(Debug)]
pub(crate) enum Failure {
    Config(ConfigError),
    Machine(vmm_machine::Error),
    LogFile { path: PathBuf, source: io::Error },
    Terminal(io::Error),
    Stdout(io::Error),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<vmm_machine::Error> for Failure {
    fn from(error: vmm_machine::Error) -> Self {
        Self::Machine(error)
    }
}

impl Failure {
    fn code(&self) -> u8 {
        use vmm_kvm::Error as Kvm;
        use vmm_machine::Error as Machine;
        match self {
            Self::Config(ConfigError::Flag { .. }) | Self::LogFile { .. } => USAGE,
            Self::Config(_) => BAD_CONFIG,
            Self::Machine(Machine::Source(_) | Machine::Plan(_) | Machine::Load(_)) => BAD_CONFIG,
            Self::Machine(Machine::Console(_)) => BAD_CONFIG,
            Self::Machine(Machine::HostMemory { .. } | Machine::HostCpus { .. } | Machine::Memory(_)) => {
                HOST_CANT
            }
            Self::Machine(Machine::Kvm(
                Kvm::NoDevice | Kvm::NoPermission | Kvm::ApiVersion(_) | Kvm::MissingCapability(_),
            )) => HOST_CANT,
            _ => INTERNAL,
        }
    }

    /// The message: outer, inner, root.
    fn text(&self) -> String {
        match self {
            Self::Config(error) => chain(error),
            Self::Machine(error) => chain(error),
            Self::LogFile { path, source } => format!("--log-file {}: {source}", path.display()),
            Self::Terminal(source) => format!("terminal: {source}"),
            Self::Stdout(source) => format!("standard output: {source}"),
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

/// What to say of a machine's end.
pub(crate) fn words(ending: &Ending) -> String {
    match ending {
        Ending::Guest(Power::Off) => "the guest powered off".into(),
        Ending::Guest(Power::Reset) => "the guest reset itself".into(),
        Ending::Halted => "the guest halted".into(),
        Ending::Crashed(crash) => format!("the guest crashed: {}", crash.cause),
        Ending::Quit => "Ctrl-A x".into(),
        Ending::Signal(signal) => format!("signal {signal}"),
        Ending::OutputGone => "nobody reads standard output".into(),
    }
}

/// Says what there is to say and gives the exit code.
pub(crate) fn report(result: Result<Outcome, Failure>) -> ExitCode {
    let code = match result {
        Err(failure) => {
            say(&format!("error: {}", failure.text()));
            failure.code()
        }
        Ok(Outcome::HostLacks) => HOST_CANT,
        Ok(Outcome::OutputGone | Outcome::Ended(Ending::OutputGone)) => BY_SIGNAL + PIPE_SIGNAL,
        Ok(Outcome::Ended(Ending::Crashed(crash))) => {
            say(&crash_text(&crash));
            GUEST_CRASHED
        }
        Ok(Outcome::Ended(Ending::Signal(signal))) => BY_SIGNAL.wrapping_add(signal as u8),
        Ok(Outcome::Done | Outcome::Ended(Ending::Guest(_) | Ending::Halted | Ending::Quit)) => 0,
    };
    ExitCode::from(code)
}

fn crash_text(crash: &Crash) -> String {
    let mut text = format!("error: the guest crashed: {}\n{}", crash.cause, crash.report);
    // As after a reset (Intel SDM volume 3, table 10-1): at the vector in the ROM, which no guest of ours has.
    if crash.cause == CrashCause::TripleFault && crash.report.sregs.cs.base == 0xffff_0000 {
        text += "\nKVM has reset the registers, as it does on AMD processors: these are not the guest's";
    }
    // Without an instruction there is none that a better KVM could run.
    let lacks = |cause| matches!(cause, CrashCause::Emulation(failure) if !failure.instruction().is_empty());
    if lacks(crash.cause) && !has_hardware_virtualization() {
        text += &format!("\n{SOFTWARE_KVM}");
    }
    text
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
