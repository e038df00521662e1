//! What the measuring half is given, and where it leaves what it measured.

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
    /// The file that says what to measure
    pub(super) spec: PathBuf,
    /// The directory for the results
    pub(super) out: PathBuf,
    /// What is measured of networks is at home here: nobody else's is touched
    #[arg(long)]
    pub(super) own_network: bool,
}

impl Arguments {
    /// Measures what the spec says, and writes the samples.
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
