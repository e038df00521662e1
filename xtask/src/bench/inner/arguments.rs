//! Command line of the measuring half.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::part::{Part, SAMPLES_FILE};
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    pub(super) part: Part,
    /// File with the specification of the benchmark
    pub(super) spec: PathBuf,
    /// Directory for the results
    pub(super) out: PathBuf,
    /// This process is already in a network namespace of its own
    #[arg(long)]
    pub(super) own_network: bool,
}

impl Arguments {
    /// Reads the specification, calls `measure` and writes the results.
    pub(super) fn measure<S: DeserializeOwned, T: Serialize>(
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
