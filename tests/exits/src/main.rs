//! Exits per second of a guest that does nothing but exit: with a minimal loop on kvm-ioctls, and with our run loop.
//!
//! All variants run in turn in this process, so that noise affects all of them alike. Each measurement has its own VM, so that a
//! favourable placement of its memory doesn't benefit one variant in all rounds. A missed goal is reported, but isn't a failure.
//! `cargo xtask bench exits` builds and runs this program.

mod bare;
mod failure;
mod handlers;
mod numbers;
mod report;
mod variant;
mod workload;

use std::process::ExitCode;

use clap::Parser;
use vmm_sandbox::ViolationAction;

use failure::Failure;
use report::{Report, Table};
use variant::Variant;
use workload::Workload;

/// Duration of one measurement: long compared with a tick of the host's scheduler (4 ms), but short compared with other load on the
/// host, so that all variants of a round are measured under the same conditions.
const MEASUREMENT_S: f64 = 0.05;

/// Measures exits per second with a minimal loop and with our run loop.
#[derive(Debug, Parser)]
#[command(name = "exit-bench")]
struct Arguments {
    /// Measurements of each variant
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    vmm_sandbox::enable(ViolationAction::Trap);
    let mut tables = Vec::new();
    for workload in workload::ALL {
        let table = measure(workload, arguments.rounds)?;
        if !arguments.json {
            println!("{table}");
        }
        tables.push(table);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&Report { rounds: arguments.rounds, tables })?);
    } else {
        println!("{}", report::LEGEND);
    }
    Ok(())
}

/// Measures all rounds of one workload.
fn measure(workload: &'static Workload, rounds: u32) -> Result<Table, Failure> {
    let scale = variant::scale(workload, MEASUREMENT_S)?;
    let mut seconds = Variant::ALL.map(|_| Vec::new());
    for _ in 0..rounds {
        for (variant, seconds) in Variant::ALL.into_iter().zip(&mut seconds) {
            seconds.push(variant.measure(workload, scale.elements)?.as_secs_f64());
        }
    }
    Ok(Table::new(workload, scale, &seconds))
}
