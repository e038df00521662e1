//! The arguments of `vmm-bin restore`.

use std::path::PathBuf;

use vmm_kvm::ClockPolicy;
use vmm_memory::Loading;

use crate::run_args::RunArgs;

/// Which machine to continue, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// Directory of the snapshot
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
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

impl RestoreArgs {
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
