//! What goes between the two halves, as JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What to measure.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Spec {
    pub(super) runs: u32,
    pub(super) mem_mib: u32,
    pub(super) timeout_s: u64,
    /// Files to read before the first run, so that nobody pays for a cold cache.
    pub(super) warm: Vec<PathBuf>,
    pub(super) contenders: Vec<Contender>,
}

/// One monitor's command.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) argv: Vec<String>,
}

/// One run of one monitor.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Sample {
    /// Its index in [`Spec::contenders`].
    pub(super) contender: usize,
    /// From exec to the first line of init.
    pub(super) to_init_ms: Option<f64>,
    /// Resident memory without guest RAM while the guest waits at its prompt.
    pub(super) resident_kib: Option<u64>,
    /// From exec to the first KVM_RUN, and how much of it reading the kernel file took, as our monitor logs them.
    pub(super) first_run_us: Option<u64>,
    pub(super) kernel_file_us: Option<u64>,
    /// What went wrong.
    pub(super) error: Option<String>,
}
