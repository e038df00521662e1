//! The developer's commands. `cargo xtask --help` lists them.

#![forbid(unsafe_code)]

mod bench;
mod demo;
mod dist;
mod failure;
mod guests;
mod lint;
mod rig_shell;
mod rootfs;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::exit_code;

/// Runs, tests and measures the monitor; sets up what is missing first.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot a stock kernel to an interactive Busybox shell
    Demo(demo::Arguments),
    /// Set up what is missing, then lint, then run every test
    Test(test::Arguments),
    /// Check layers, unsafe code, architecture fences, circles among files, file lengths, lint levels, format, clippy, duplicates, dependencies and docs
    Lint,
    /// Open a root shell in a machine that has a genuine /dev/kvm, or run one command there
    Rig(rig_shell::Arguments),
    /// Build the bare-metal guests and list their images
    Guests,
    /// Build disks that a guest boots from to a login
    Rootfs(rootfs::Arguments),
    /// Build what is released, in target/dist: the static program with its man page, completions and schema, as a tarball and as a Debian
    /// package, with their checksums
    Dist,
    /// Compare start-up time and memory with those of other monitors
    Bench(bench::Arguments),
    /// The measuring half of bench, which runs where the guests run
    #[command(hide = true)]
    BenchInner(bench::inner::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Lint => lint::run(),
        Command::Rig(arguments) => rig_shell::run(&arguments),
        Command::Guests => guests::run(),
        Command::Rootfs(arguments) => rootfs::run(&arguments),
        Command::Dist => dist::run(),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::BenchInner(arguments) => bench::inner::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            match error.downcast_ref::<rig::Error>() {
                Some(rig::Error::Interrupted { signal }) => exit_code(128 + signal),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
