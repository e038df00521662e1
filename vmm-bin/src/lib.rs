//! A virtual machine monitor that boots stock Linux kernels. This is the program, which wires the crates together.
//!
//! Its features `io-uring`, `qcow2` and `usernet` are those of vmm-virtio-devices, all on by default. `escape-hooks` is for tests
//! of the sandbox only.
//!
//! It is a library only because the man page and the shell completions are generated from [`command`].
#![forbid(unsafe_code)]

mod args;
mod bare;
mod confine;
mod control;
mod ctl;
mod ctl_args;
mod ctl_error;
mod ctl_snapshot;
mod descriptors;
mod doctor;
mod finish;
mod help_headings;
mod inputs;
mod json_fields;
mod kinds;
mod log;
mod panics;
mod prepare;
mod privileges;
mod restore;
mod restore_args;
mod run_args;
mod snapshot;
mod streams;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::{CommandFactory, Parser};
use vmm_hostio::{crash, terminal};
use vmm_machine::{Ending, Offloaded, Run, Start, Supervisor, outlive_file_limits};

use crate::args::{Args, Command, Schema};
use crate::control::Control;
use crate::descriptors::Inherited;
use crate::finish::{Failure, Finished};
use crate::kinds::KINDS;
use crate::prepare::{Opened, Prepared, ReadConfig};
use crate::streams::Streams;

/// Runs the program with the process's arguments and returns its exit code. Call it once, on the main thread, before starting
/// others.
pub fn main() -> ExitCode {
    let started = Instant::now();
    let with_backtrace = crash::hide_backtrace_variable();
    let inherited = Inherited::find();
    privileges::set_no_new_privileges();
    outlive_file_limits();
    let mut streams = match Streams::open() {
        Ok(streams) => streams,
        Err(error) => return finish::without_streams(&error),
    };
    streams.protect([]);
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return finish::usage(error, &streams),
    };
    streams.protect(args.inputs());
    panics::report_to(&streams, with_backtrace);
    let control = Control::default();
    let result = run(Arc::new(args), inherited, &mut streams, started, &control);
    let (code, reason) = finish::report(result, &streams);
    control.end(code, reason);
    // The kernel closes the streams. Here, with the signals blocked, a close that waits for storage couldn't be interrupted.
    std::mem::forget(streams);
    ExitCode::from(code)
}

/// The definition of the command line.
pub fn command() -> clap::Command {
    Args::command()
}

fn run(
    args: Arc<Args>,
    inherited: Inherited,
    streams: &mut Streams,
    started: Instant,
    control: &Control,
) -> Result<Finished, Failure> {
    match &args.command {
        Some(Command::Schema { of: Schema::Config }) => print(&format!("{:#}\n", schema())),
        Some(Command::Schema { of: Schema::Control }) => {
            print(&format!("{:#}\n", vmm_config::control_schema()))
        }
        Some(Command::Ctl(arguments)) => {
            let mut finished = Finished::Printed;
            ctl::run(arguments, |text| {
                finished = print(text)?;
                Ok::<_, Failure>(matches!(finished, Finished::Printed))
            })?;
            Ok(finished)
        }
        Some(Command::Doctor) => doctor(),
        Some(Command::Snapshot(command)) => print(&command.text()?),
        None if args.check => check(&args, inherited, streams),
        Some(Command::Restore(_)) | None => boot(args, inherited, streams, started, control),
    }
}

/// Prints the plan of the machine.
fn check(args: &Args, inherited: Inherited, streams: &Streams) -> Result<Finished, Failure> {
    let read = ReadConfig::new(args, inherited, streams)?;
    match read.check(args, streams) {
        Ok(plan) => print(&plan),
        Err(failure) => Err(failure.of_config(&read.origin)),
    }
}

/// Runs a machine, and the machines that follow it after a reset.
fn boot(
    args: Arc<Args>,
    inherited: Inherited,
    streams: &mut Streams,
    started: Instant,
    control: &Control,
) -> Result<Finished, Failure> {
    let mut supervisor = Supervisor::new(started, args.run().timeouts(started))?;
    supervisor.attach(&streams.stderr)?;
    supervisor.attach(&streams.stdout)?;
    let (theirs, said) = (Arc::clone(&args), streams.clone());
    let prepared = supervisor.offload(move |progress| Prepared::new(&theirs, inherited, &said, progress))?;
    let Prepared { config, origin, about, restore, opened, in_use } = match prepared {
        Offloaded::Done(prepared) => prepared?,
        Offloaded::Ended(ending) => return Ok(Finished::ended(ending)),
    };
    let Opened { plan, inputs, metrics, log, socket, streams_in_use, has_keys } = opened;
    let attached = log.as_ref().map_or(Ok(()), |log| supervisor.attach(log));
    streams.log = log.clone();
    let confine = confine::confinement(&config);
    let is_controlled = socket.is_some();
    let (name, socket) = socket.unzip();
    let served =
        name.as_ref().zip(socket).map(|(name, socket)| control.of(name, socket, supervisor.commander()));
    let (service, events) = served.unzip();
    let start = Start {
        config,
        kinds: KINDS,
        plan,
        inputs,
        diagnostics: args.run().diagnostics(streams),
        metrics,
        announcements: Some(streams.stdout.clone()),
        events: events.unwrap_or_default(),
        about,
        restore,
        services: service.into_iter().collect(),
        paused: args.run().paused,
        restarted: log::restarted,
        confine,
    };
    let ran = attached
        .map_err(Failure::from)
        .and_then(|()| check_terminal(&args, has_keys, is_controlled))
        .and_then(|()| supervisor.run(start).map_err(Failure::from));
    supervisor.discard((in_use, streams_in_use, name));
    let failure = match ran {
        Ok(run) => return Ok(Finished::Ran(run)),
        Err(failure) => failure,
    };
    let text = failure.text();
    let located = supervisor.offload(move |_| {
        if let Some(log) = log {
            log.remove_unused_log();
        }
        text.map(|text| origin.locate(text))
    });
    match located {
        Ok(Offloaded::Done(Some(message))) => Err(failure.with_message(message)),
        Ok(Offloaded::Ended(ending)) => {
            Ok(Finished::Ran(Run { ending, exits: None, losses: failure.losses().to_vec() }))
        }
        // Or it can't be located: the failure of the run matters more than why.
        Ok(Offloaded::Done(None)) | Err(_) => Err(failure),
    }
}

/// Whether the machine can have the terminal. Checked only at the start: a job that is put into the background later keeps
/// running.
fn check_terminal(args: &Args, has_keys: bool, is_controlled: bool) -> Result<(), Failure> {
    if has_keys && terminal::is_background(io::stdin()) {
        return Err(Failure::Background);
    }
    if args.run().paused && !has_keys && !is_controlled {
        return Err(Failure::NoKeys);
    }
    Ok(())
}

/// The JSON schema of a config file, with the fields of every kind of device.
fn schema() -> serde_json::Value {
    let listed = KINDS.legacy().filter_map(|kind| Some((kind.listed_as()?, kind.schema)));
    vmm_config::schema_with(listed.chain(KINDS.virtio().map(|kind| (kind.name, kind.schema))))
}

fn doctor() -> Result<Finished, Failure> {
    let report = doctor::Report::of_host();
    let printed = print(&report.text)?;
    Ok(if report.is_healthy { printed } else { Finished::HostLacks })
}

/// Prints to standard output. If its reader has gone, the program ends without a message, as with SIGPIPE.
fn print(text: &str) -> Result<Finished, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Finished::ended(Ending::OutputClosed)),
        Err(source) => Err(Failure::Stdout(source)),
        Ok(()) => Ok(Finished::Printed),
    }
}

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
