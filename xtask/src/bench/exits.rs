//! `cargo xtask bench exits`: exits per second of a guest that does nothing else, with our run loop and with a minimal one.
//!
//! The guests are a few instructions long and run on any /dev/kvm, even a software implementation. So the rig is used only on
//! request, or if this host has no usable /dev/kvm.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use rig::{Assets, Reason, Rig, note};

use crate::failure::{Failure, exit_code};
use crate::workspace::{self, cargo, succeed};

const PACKAGE: &str = "exit-bench";

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Measurements of each variant [default: 20]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Measure in the rig
    #[arg(long)]
    rig: bool,
}

impl Arguments {
    /// The default arguments, with or without `--rig`.
    pub(super) fn with_rig(rig: bool) -> Self {
        Self { rig, ..Self::default() }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut command = vec![build()?];
    if let Some(rounds) = arguments.rounds {
        command.push(format!("--rounds={rounds}").into());
    }
    if arguments.json {
        command.push("--json".into());
    }
    let code = if arguments.rig { run_in_rig(&command)? } else { run_command(&command)? };
    Ok(exit_code(code))
}

fn build() -> Result<OsString, Failure> {
    note("building exit-bench (release)");
    let build = cargo(&["build", "--quiet", "--release", "--package", PACKAGE]).status()?;
    succeed(build, "cargo build --release --package exit-bench")?;
    Ok(workspace::target_dir().join("release").join(PACKAGE).into_os_string())
}

fn run_command(command: &[OsString]) -> Result<i32, Failure> {
    match rig::reason_for_rig() {
        None | Some(Reason::SoftwareKvm) => {
            Ok(Command::new(&command[0]).args(&command[1..]).status()?.code().unwrap_or(1))
        }
        Some(reason) => {
            note(&format!("{reason}; measuring exits in the rig"));
            run_in_rig(command)
        }
    }
}

fn run_in_rig(command: &[OsString]) -> Result<i32, Failure> {
    Ok(Rig::new(&Assets::at(workspace::root())).run(command)?.exit_code)
}
