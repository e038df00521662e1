//! Exits per second of a guest that does nothing but exit: through a bare loop on kvm-ioctls, and through ours.
//!
//! All variants run in this process, in turn, so that a noisy machine treats them alike. Each measurement has a VM of its
//! own: where a VM's memory happens to lie must not favour one variant for all rounds. It judges nothing: a goal that is
//! missed is said and isn't a failure. `cargo xtask bench exits` builds and runs it.

mod bare;
mod failure;
mod handlers;
mod numbers;
mod report;
mod variant;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use failure::Failure;
use report::{Report, Table};
use variant::Variant;
use workload::Workload;

/// How long one measurement takes: long beside a tick of the host's scheduler (4 ms), short beside what a noisy neighbour
/// needs to come and go, so that the variants of one round see the same host.
const MEASUREMENT_S: f64 = 0.05;

/// Measures exits per second through a bare loop and through ours.
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

/// All rounds of one workload.
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
