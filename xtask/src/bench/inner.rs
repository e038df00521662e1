//! The measuring half of the benchmark: starts each monitor in turn, times its guest, looks at its memory.

mod run;
mod smaps;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use super::SAMPLES_FILE;
use super::spec::Spec;
use crate::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file that says what to measure
    spec: PathBuf,
    /// The directory for the results
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let spec: Spec = serde_json::from_slice(&fs::read(&arguments.spec)?)?;
    for path in &spec.warm {
        fs::read(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
    }
    let mut samples = Vec::new();
    for round in 1..=spec.runs {
        for (index, contender) in spec.contenders.iter().enumerate() {
            let sample = run::once(index, contender, &spec);
            let result = match (&sample.error, sample.to_init_ms) {
                (None, Some(ms)) => format!("{ms:.0} ms"),
                (error, _) => error.clone().unwrap_or_default(),
            };
            println!("run {round} of {}: {}: {result}", spec.runs, contender.name);
            samples.push(sample);
        }
    }
    let path = arguments.out.join(SAMPLES_FILE);
    fs::write(&path, serde_json::to_vec_pretty(&samples)?)
        .map_err(|error| format!("can't write {}: {error}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}
