//! A virtual machine monitor that boots stock Linux kernels: the program, which wires the crates together.
#![forbid(unsafe_code)]

mod args;
mod bare;
mod descriptors;
mod inputs;
mod log;
mod outcome;
mod panics;
mod privileges;
mod streams;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use vmm_config::{Config, ConfigFile, FlagFields, OnReboot};
use vmm_hostio::crash;
use vmm_hostio::terminal::{self, RawMode};
use vmm_machine::doctor::Host;
use vmm_machine::{
    ConfigInUse, DeviceLog, Inputs, Machine, MetricsFile, OutputCheck, Plan, outlive_file_limits,
};
use vmm_virtio_devices::KINDS;

use crate::args::{Args, Command};
use crate::descriptors::Inherited;
use crate::outcome::{Failure, Origin, Outcome};
use crate::streams::Streams;

fn main() -> ExitCode {
    let started = Instant::now();
    let inherited = Inherited::find();
    privileges::give_up();
    outlive_file_limits();
    let mut streams = match Streams::open() {
        Ok(streams) => streams,
        Err(error) => return outcome::without_streams(&error),
    };
    streams.protect([]);
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return outcome::usage(error, &streams),
    };
    streams.protect(args.inputs());
    panics::report_to(&streams);
    let result = run(&args, inherited, &mut streams, started);
    outcome::report(result, &streams)
}

fn run(
    args: &Args,
    inherited: Inherited,
    streams: &mut Streams,
    started: Instant,
) -> Result<Outcome, Failure> {
    match args.command {
        Some(Command::Schema) => print(&format!("{:#}\n", schema())),
        Some(Command::Doctor) => doctor(),
        None => boot(args, inherited, streams, started),
    }
}

fn boot(
    args: &Args,
    inherited: Inherited,
    streams: &mut Streams,
    started: Instant,
) -> Result<Outcome, Failure> {
    args.bare().check(&args.given_files())?;
    let file = args.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
    streams.protect(inputs::named_by(&file));
    // As long as the machine is there, and others that are made from it.
    let _in_use = args.config.as_deref().map(ConfigInUse::note);
    let overrides = args.overrides()?;
    let origin = Origin { file: file.origin.clone(), flags: FlagFields::new(&file, &overrides) };
    let config = file.merge(overrides)?;
    inherited.close_unnamed(&config, std::env::args_os());
    boot_config(args, &config, streams, started).map_err(|failure| failure.of_config(origin))
}

fn boot_config(
    args: &Args,
    config: &Config,
    streams: &mut Streams,
    started: Instant,
) -> Result<Outcome, Failure> {
    let mut inputs = if args.check {
        Inputs::look(config, KINDS)?
    } else {
        descriptors::raise_limit();
        Inputs::open(config, KINDS)?
    };
    // What only the devices know is locked now, such as the files below an image.
    streams.protect([]);
    let outputs = check_outputs(args, config, &inputs)?;
    let mut plan = Plan::new(config, &mut inputs)?;
    let _in_use = outputs.note_streams().map_err(Failure::Stream)?;
    if args.check {
        return print(&plan.to_string());
    }
    // Raw from the first start to the last end.
    let mut terminal = None;
    let mut device_log = DeviceLog::default();
    // In the order of the check.
    let metrics = args.metrics.as_deref().map(metrics).transpose()?;
    log::init(args, streams)?;
    let mut restarts = 0_u32;
    loop {
        let mut machine = build(args, plan, inputs, (metrics.as_ref(), streams), &mut terminal, started)?;
        machine.set_device_log(device_log);
        let mut run = machine.run(started)?;
        match run.restart.take().filter(|_| config.on_reboot == OnReboot::Restart) {
            Some(kept) => inputs = kept,
            None => return Ok(Outcome::Ended(Box::new(run))),
        }
        inputs.reopen_lost(config, KINDS)?;
        plan = Plan::new(config, &mut inputs)?;
        device_log = run.device_log;
        restarts = restarts.saturating_add(1);
        log::restarted(restarts);
    }
}

fn metrics(path: &Path) -> Result<MetricsFile, Failure> {
    MetricsFile::create(path).map_err(|source| Failure::Metrics { path: path.to_owned(), source })
}

/// Refuses files that can't be written, before one of them is made or changed.
fn check_outputs(args: &Args, config: &Config, inputs: &Inputs) -> Result<OutputCheck, Failure> {
    let mut outputs = OutputCheck::default();
    if let Some(path) = &args.metrics {
        outputs.metrics(path).map_err(|source| Failure::Metrics { path: path.clone(), source })?;
    }
    if let Some(path) = &args.log_file {
        outputs.log(path).map_err(|source| Failure::LogFile { path: path.clone(), source })?;
    }
    outputs.consoles(config, inputs)?;
    Ok(outputs)
}

/// Builds the machine, ready to run.
fn build(
    args: &Args,
    plan: Plan,
    inputs: Inputs,
    (metrics, streams): (Option<&MetricsFile>, &Streams),
    terminal: &mut Option<RawMode>,
    started: Instant,
) -> Result<Machine, Failure> {
    let on_terminal = plan.is_on_stdio() && io::stdin().is_terminal();
    // Who was put into the background later goes on there.
    if on_terminal && terminal.is_none() && terminal::is_background(io::stdin()) {
        return Err(Failure::Background);
    }
    let mut machine = Machine::build(plan, inputs, args.diagnostics(on_terminal, streams))?;
    let ptys: String = machine.ptys().map(|(console, pty)| format!("{console}: {pty}\n")).collect();
    streams.stdout.say(ptys.as_bytes());
    machine.attach(streams.stdout.clone());
    if let Some(log) = &streams.log {
        machine.attach(log.clone());
    }
    if let Some(timeout) = args.timeout {
        machine.set_timeout(timeout.get().saturating_sub(started.elapsed()))?;
    }
    if let Some(timeout) = args.shutdown_timeout {
        machine.set_shutdown_timeout(timeout.get());
    }
    if let Some(metrics) = metrics {
        machine.set_metrics(metrics.clone());
    }
    if on_terminal && terminal.is_none() {
        crash::restore_terminal().map_err(Failure::Terminal)?;
        *terminal = Some(RawMode::enter(io::stdin()).map_err(Failure::Terminal)?);
    }
    Ok(machine)
}

/// Of a config file with every kind of device.
fn schema() -> serde_json::Value {
    vmm_config::schema_with(KINDS.iter().map(|kind| (kind.name, kind.schema)))
}

fn doctor() -> Result<Outcome, Failure> {
    let findings = Host::probe().findings();
    let text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    let healthy = findings.iter().all(|finding| finding.remedy.is_none());
    let printed = print(&text)?;
    Ok(if healthy { printed } else { Outcome::HostLacks })
}

/// Prints to standard output; a reader that has gone ends the program quietly.
fn print(text: &str) -> Result<Outcome, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome::OutputGone),
        Err(source) => Err(Failure::Stdout(source)),
        Ok(()) => Ok(Outcome::Done),
    }
}
