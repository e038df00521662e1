//! The commands about snapshots on disk.

use std::path::PathBuf;

use clap::Subcommand;
use vmm_config::printable;
use vmm_snapshot::{Error, describe, describe_json, read_manifest, verify};

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Print what a snapshot is of
    Describe {
        /// Directory of the snapshot
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Print the whole manifest as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Check that a snapshot is complete and undamaged
    Verify {
        /// Directory of the snapshot
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

impl SnapshotCommand {
    /// What the command prints.
    ///
    /// # Errors
    /// The snapshot can't be read, or is refused.
    pub(crate) fn text(&self) -> Result<String, Error> {
        match self {
            Self::Describe { directory, json: false } => Ok(describe(&read_manifest(directory)?)),
            Self::Describe { directory, json: true } => Ok(describe_json(&read_manifest(directory)?)),
            Self::Verify { directory } => {
                let verified = verify(directory)?;
                Ok(format!("{}: {verified}\n", printable(&directory.to_string_lossy())))
            }
        }
    }
}
