//! The arguments of `vmm-bin restore`.

use std::path::{Path, PathBuf};

use vmm_config::printable;
use vmm_kvm::ClockPolicy;
use vmm_memory::Loading;

use crate::run_args::RunArgs;

/// Which machine to continue, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// Directory of the snapshot, or the file with its state, before the one with its memory
    #[arg(value_name = "SNAPSHOT")]
    snapshot: PathBuf,
    /// File with the snapshot's memory, if the first isn't a directory
    #[arg(value_name = "MEMORY_FILE")]
    memory_file: Option<PathBuf>,
    /// Change a field of the machine's config, such as serial=pty or devices.disk0.path=/srv/copy.img; may be repeated
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(crate) set: Vec<String>,
    /// Map the snapshot's memory, which must then stay as it is, or copy it at the start
    #[arg(long, value_enum, default_value_t)]
    memory: Memory,
    /// What becomes of the time since the snapshot: the guest's clocks go on where they stopped, or are advanced
    #[arg(long, value_enum, default_value_t)]
    clock: Clock,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Memory {
    #[default]
    Map,
    Copy,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Clock {
    #[default]
    Freeze,
    Advance,
}

/// Where a snapshot is.
pub(crate) enum Place<'a> {
    Directory(&'a Path),
    /// Its two files, without the rest of a directory.
    Files {
        state: &'a Path,
        memory: &'a Path,
    },
}

impl RestoreArgs {
    /// # Errors
    /// A file was named where a directory was expected.
    pub(crate) fn place(&self) -> Result<Place<'_>, String> {
        match &self.memory_file {
            Some(memory) => Ok(Place::Files { state: &self.snapshot, memory }),
            None if self.snapshot.is_file() => {
                let file = printable(&self.snapshot.to_string_lossy()).into_owned();
                Err(format!(
                    "{file} is a file: name the snapshot's directory, or also the file with its memory"
                ))
            }
            None => Ok(Place::Directory(&self.snapshot)),
        }
    }

    /// The file from which the config was taken, for messages.
    pub(crate) fn config_file(&self) -> PathBuf {
        match &self.memory_file {
            Some(_) => self.snapshot.clone(),
            None => self.snapshot.join("manifest.json"),
        }
    }

    pub(crate) fn loading(&self) -> Loading {
        match self.memory {
            Memory::Map => Loading::CopyOnWrite,
            Memory::Copy => Loading::Copy,
        }
    }

    pub(crate) fn clock(&self) -> ClockPolicy {
        match self.clock {
            Clock::Freeze => ClockPolicy::Freeze,
            Clock::Advance => ClockPolicy::Advance,
        }
    }
}
