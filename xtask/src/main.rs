//! Commands for developers. `cargo xtask --help` lists them.

#![forbid(unsafe_code)]

mod bench;
mod calls;
mod demo;
mod dist;
mod failure;
mod guests;
mod lint;
mod linux;
mod rig_shell;
mod rootfs;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::exit_code;

/// Runs, tests and measures the monitor. Missing kernels, tools and packages are fetched or built first.
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
    /// Fetch and build what tests need, run the lint, then run all tests
    Test(test::Arguments),
    /// Check layers, unsafe code, architecture fences, import circles, names, file lengths, lint levels, format, dependencies, packages, clippy with and without features, and docs
    Lint,
    /// Run tests with the monitor under strace, and compare the calls of each thread with its filter
    Calls(calls::Arguments),
    /// Open a root shell in the rig, a machine with a genuine /dev/kvm, or run a command there
    Rig(rig_shell::Arguments),
    /// Build the bare-metal guests and list their images
    Guests,
    /// Fetch a stock kernel, Busybox and its initramfs, and list the files
    Linux,
    /// Build disk images from which a guest boots to a login prompt
    Rootfs(rootfs::Arguments),
    /// Build the release in target/dist: the static program, its man page, completions and schema, as a tarball and a Debian package,
    /// with checksums
    Dist,
    /// Measure start-up time and memory of this and other monitors
    Bench(bench::Arguments),
    /// The measuring half of bench, which runs on the host or in the rig, where the guests run
    #[command(hide = true)]
    BenchInner(bench::inner::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Lint => lint::run(),
        Command::Calls(arguments) => calls::run(&arguments),
        Command::Rig(arguments) => rig_shell::run(&arguments),
        Command::Guests => guests::run(),
        Command::Linux => linux::run(),
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
