//! `cargo xtask rig`: runs a shell or a command in the rig.

use std::ffi::OsString;
use std::io::{IsTerminal, stdin};
use std::process::ExitCode;

use rig::{Assets, Rig, Stdin};

use crate::failure::{Failure, exit_code};
use crate::workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The rig's memory in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// The rig's number of CPUs
    #[arg(long)]
    cpus: Option<u32>,
    /// Command to run instead of a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut rig = Rig::new(&Assets::at(workspace::root()));
    if let Some(memory_mib) = arguments.memory {
        rig = rig.memory_mib(memory_mib);
    }
    if let Some(cpus) = arguments.cpus {
        rig = rig.cpus(cpus);
    }
    let shell = [OsString::from("/bin/sh"), OsString::from("-i")];
    let command = if arguments.command.is_empty() { &shell[..] } else { &arguments.command };
    let outcome = run_in(rig, command)?;
    Ok(exit_code(outcome.exit_code))
}

/// Runs `command` in the rig: on the user's terminal if there is one, otherwise with our standard input.
pub(crate) fn run_in(rig: Rig, command: &[OsString]) -> Result<rig::CommandOutput, Failure> {
    if rig::is_interactive() {
        return Ok(rig.run_on_terminal(command)?);
    }
    // If only standard input is a terminal, reading from it would take input from the user's shell.
    let input = if stdin().is_terminal() { Stdin::Null } else { Stdin::Inherit };
    Ok(rig.stdin(input).run(command)?)
}
