//! The measuring half of the benchmark: starts each monitor in turn and looks at its guest and its memory.

mod block;
mod guest;
mod memory;
pub(super) mod net;
mod run;
mod smaps;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::halves::SAMPLES_FILE;
use crate::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    part: Part,
    /// The file that says what to measure
    spec: PathBuf,
    /// The directory for the results
    out: PathBuf,
    /// What is measured of networks is at home here: nobody else's is touched
    #[arg(long)]
    own_network: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Part {
    Start,
    Block,
    Memory,
    Net,
}

impl Part {
    /// As it's written on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Block => "block",
            Self::Memory => "memory",
            Self::Net => "net",
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match arguments.part {
        Part::Start => arguments.measure(run::all),
        Part::Block => arguments.measure(block::all),
        Part::Memory => arguments.measure(memory::all),
        Part::Net if !arguments.own_network => net::in_own_network(arguments),
        Part::Net => arguments.measure(net::all),
    }
}

impl Arguments {
    fn measure<S: DeserializeOwned, T: Serialize>(
        &self,
        measure: fn(&S) -> Result<T, Failure>,
    ) -> Result<ExitCode, Failure> {
        let samples = measure(&serde_json::from_slice(&fs::read(&self.spec)?)?)?;
        let path = self.out.join(SAMPLES_FILE);
        fs::write(&path, serde_json::to_vec_pretty(&samples)?)
            .map_err(|error| format!("can't write {}: {error}", path.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads files to their end, so that nobody pays for a cold cache.
fn warm(paths: &[PathBuf]) -> Result<(), Failure> {
    let read =
        |path: &Path| fs::read(path).map_err(|error| format!("can't read {}: {error}", path.display()));
    paths.iter().try_for_each(|path| read(path).map(drop))?;
    Ok(())
}
