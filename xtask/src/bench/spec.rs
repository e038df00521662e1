//! What goes between the two halves, as JSON.

use std::path::PathBuf;

use clap::ValueEnum;
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

/// What to measure of disks.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct BlockSpec {
    pub(super) rounds: u32,
    /// Of each job.
    pub(super) seconds: u32,
    /// Of each guest.
    pub(super) timeout_s: u64,
    pub(super) warm: Vec<PathBuf>,
    /// The file behind the disk, which the measuring half makes and removes.
    pub(super) disk: PathBuf,
    pub(super) disk_mib: u32,
    /// Past the page cache.
    pub(super) direct: bool,
    /// The command that runs fio's jobs on the file.
    pub(super) fio: Vec<String>,
    pub(super) contenders: Vec<Contender>,
}

/// One run of all jobs.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct BlockSample {
    pub(super) round: u32,
    /// Its index in [`BlockSpec::contenders`]; absent for the file itself.
    pub(super) contender: Option<usize>,
    pub(super) figures: Vec<Figure>,
    pub(super) error: Option<String>,
}

/// What one job reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Figure {
    pub(super) job: String,
    pub(super) iops: u64,
    pub(super) kib_per_s: u64,
}

/// What to measure of memory.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct MemorySpec {
    pub(super) rounds: u32,
    pub(super) mem_mib: u32,
    pub(super) timeout_s: u64,
    pub(super) warm: Vec<PathBuf>,
    pub(super) machines: Vec<Machine>,
}

/// A monitor's command with so many virtio devices.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) argv: Vec<String>,
    pub(super) devices: u32,
}

/// One look at one machine.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct MemorySample {
    pub(super) round: u32,
    /// Its index in [`MemorySpec::machines`].
    pub(super) machine: usize,
    /// Memory that only the monitor has, without guest RAM.
    pub(super) private_kib: Option<u64>,
    pub(super) error: Option<String>,
}

/// What to measure of networks.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NetSpec {
    pub(super) rounds: u32,
    /// Of each job.
    pub(super) seconds: u32,
    /// Of each guest.
    pub(super) timeout_s: u64,
    pub(super) mem_mib: u32,
    /// Idle connections of a guest in user mode; 0 for none.
    pub(super) flows: u32,
    pub(super) warm: Vec<PathBuf>,
    /// The command iperf3, to be followed by its arguments.
    pub(super) iperf3: Vec<String>,
    pub(super) contenders: Vec<NetContender>,
}

/// One monitor's command with a card of one kind.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NetContender {
    pub(super) kind: NetKind,
    pub(super) name: String,
    pub(super) argv: Vec<String>,
    /// The command that fails where the monitor knows no such card.
    pub(super) check: Option<Vec<String>>,
}

/// What a guest's card is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum NetKind {
    /// Ours at a TAP
    Tap,
    /// Ours at a TAP, with 4 vCPUs and so many pairs of queues
    Tap4,
    /// Ours at a TAP, whose packets the host's kernel moves
    Vhost,
    /// Ours with the monitor's own network, where idle connections are counted too
    User,
    /// QEMU's microvm at a TAP
    Qemu,
    /// QEMU's microvm at a TAP, with 4 vCPUs and pairs of queues
    Qemu4,
    /// QEMU's microvm at a TAP, whose packets the host's kernel moves
    QemuVhost,
    /// Given by its command
    #[value(skip)]
    Peer,
}

/// All that was measured of networks.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NetResults {
    /// Processors where it was measured.
    pub(super) cpus: usize,
    /// Indices of [`NetSpec::contenders`] that couldn't run, and why.
    pub(super) left_out: Vec<(usize, String)>,
    pub(super) samples: Vec<NetSample>,
}

/// One run of all jobs.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NetSample {
    pub(super) round: u32,
    /// Its index in [`NetSpec::contenders`]; absent for the two namespaces.
    pub(super) contender: Option<usize>,
    pub(super) figures: Vec<NetFigure>,
    pub(super) flows: Option<FlowsSample>,
    /// What went wrong.
    pub(super) errors: Vec<String>,
}

/// The monitor's own memory and a guest's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct FlowsSample {
    /// Without them.
    pub(super) before_kib: u64,
    /// When the last was opened.
    pub(super) opened_kib: u64,
    /// When nothing had come or gone for a while.
    pub(super) idle_kib: u64,
}

/// What one job reached.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct NetFigure {
    pub(super) job: String,
    /// As the receiver saw it.
    pub(super) mbit_per_s: f64,
    /// Of datagrams.
    pub(super) lost_percent: Option<f64>,
    /// Segments that TCP sent again.
    pub(super) retransmits: Option<u64>,
}
