//! Specifications and results, passed between the two halves as JSON.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Specification of the start-up benchmark.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Spec {
    pub(super) runs: u32,
    pub(super) mem_mib: u32,
    pub(super) timeout_s: u64,
    /// Files to read before the first run, so that no run has a cold cache.
    pub(super) warm: Vec<PathBuf>,
    pub(super) contenders: Vec<Contender>,
}

/// A monitor and its command.
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
    /// Time from exec to the first line of init.
    pub(super) to_init_ms: Option<f64>,
    /// Resident memory without guest RAM while the guest waits at its prompt.
    pub(super) resident_kib: Option<u64>,
    /// Time from exec to the first KVM_RUN, and the time of it spent reading the kernel file, as logged by vmm-bin.
    pub(super) first_run_us: Option<u64>,
    pub(super) kernel_file_us: Option<u64>,
    /// The error, if the run failed.
    pub(super) error: Option<String>,
}

/// Specification of the disk benchmark.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct BlockSpec {
    pub(super) rounds: u32,
    /// Duration of each job.
    pub(super) seconds: u32,
    /// Timeout of each guest.
    pub(super) timeout_s: u64,
    pub(super) warm: Vec<PathBuf>,
    /// The disk's file, which the measuring half creates and removes.
    pub(super) disk: PathBuf,
    pub(super) disk_mib: u32,
    /// Bypass the page cache.
    pub(super) direct: bool,
    /// The command that runs the fio jobs on the file.
    pub(super) fio: Vec<String>,
    pub(super) contenders: Vec<Contender>,
}

/// One run of all jobs.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct BlockSample {
    pub(super) round: u32,
    /// Its index in [`BlockSpec::contenders`]; `None` for the file itself.
    pub(super) contender: Option<usize>,
    pub(super) figures: Vec<Figure>,
    /// From the start to the first job; `None` for the file itself.
    pub(super) boot: Option<Costs>,
    pub(super) error: Option<String>,
}

/// The result of one fio job.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Figure {
    pub(super) job: String,
    pub(super) iops: u64,
    pub(super) kib_per_s: u64,
    /// Everything that was read and written.
    pub(super) kib: u64,
    /// `None` for the file itself.
    pub(super) costs: Option<Costs>,
}

/// What a guest's work has cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Costs {
    /// Returns from KVM_RUN; `None` if they can't be counted.
    pub(super) returns: Option<u64>,
    /// Interrupts of all virtio devices that the guest has taken.
    pub(super) interrupts: u64,
    /// Packets that the guest's card has sent and received; 0 without a card.
    pub(super) packets: u64,
    /// Processor time of the monitor, its guest included.
    pub(super) cpu_ms: u64,
}

impl Costs {
    pub(super) fn returns(&self) -> Option<f64> {
        self.returns.map(|returns| returns as f64)
    }

    pub(super) fn interrupts(&self) -> Option<f64> {
        Some(self.interrupts as f64)
    }

    pub(super) fn cpu_us(&self) -> Option<f64> {
        Some(self.cpu_ms as f64 * 1000.0)
    }
}

/// Specification of the memory benchmark.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct MemorySpec {
    pub(super) rounds: u32,
    pub(super) mem_mib: u32,
    pub(super) timeout_s: u64,
    pub(super) warm: Vec<PathBuf>,
    pub(super) machines: Vec<Machine>,
}

/// A monitor's command, and the number of virtio devices of its machine.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) argv: Vec<String>,
    pub(super) devices: u32,
}

/// One measurement of one machine.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct MemorySample {
    pub(super) round: u32,
    /// Its index in [`MemorySpec::machines`].
    pub(super) machine: usize,
    /// Private memory of the monitor without guest RAM.
    pub(super) private_kib: Option<u64>,
    pub(super) error: Option<String>,
}

/// Specification of the network benchmark.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NetSpec {
    pub(super) rounds: u32,
    /// Duration of each job.
    pub(super) seconds: u32,
    /// Timeout of each guest.
    pub(super) timeout_s: u64,
    pub(super) mem_mib: u32,
    /// Number of idle connections of a guest in user mode; 0 for none.
    pub(super) flows: u32,
    pub(super) warm: Vec<PathBuf>,
    /// The command that runs iperf3, without arguments.
    pub(super) iperf3: Vec<String>,
    pub(super) contenders: Vec<NetContender>,
}

/// A monitor's command with a network card of one kind.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NetContender {
    pub(super) kind: NetKind,
    pub(super) name: String,
    pub(super) argv: Vec<String>,
    /// A command that fails if the monitor doesn't support this card.
    pub(super) check: Option<Vec<String>>,
}

/// A monitor and the backend of its network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum NetKind {
    /// vmm-bin with a TAP
    Tap,
    /// vmm-bin with a TAP, by MMIO
    TapMmio,
    /// vmm-bin with a TAP, 4 vCPUs and 4 queue pairs
    Tap4,
    /// vmm-bin with a TAP and vhost-net
    Vhost,
    /// vmm-bin with a TAP and vhost-net, by MMIO
    VhostMmio,
    /// vmm-bin in user mode; idle connections are measured as well
    User,
    /// vmm-bin with a TAP, without its sandbox
    TapOff,
    /// vmm-bin in user mode, without its sandbox
    UserOff,
    /// QEMU's microvm with a TAP
    Qemu,
    /// QEMU's microvm with a TAP, 4 vCPUs and 4 queue pairs
    Qemu4,
    /// QEMU's microvm with a TAP and vhost-net
    QemuVhost,
    /// Any monitor, given by its command
    #[value(skip)]
    Peer,
}

/// Results of the network benchmark.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NetResults {
    /// Number of processors available to the measurement.
    pub(super) cpus: usize,
    /// Indices in [`NetSpec::contenders`] of those that couldn't run, and why.
    pub(super) left_out: Vec<(usize, String)>,
    pub(super) samples: Vec<NetSample>,
}

/// One run of all jobs.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NetSample {
    pub(super) round: u32,
    /// Its index in [`NetSpec::contenders`]; `None` for the veth pair.
    pub(super) contender: Option<usize>,
    pub(super) figures: Vec<NetFigure>,
    pub(super) flows: Option<FlowsSample>,
    /// Errors of the run and of its jobs.
    pub(super) errors: Vec<String>,
}

/// The monitor's private memory with and without a guest's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct FlowsSample {
    /// Before the connections were opened.
    pub(super) before_kib: u64,
    /// After the last was opened.
    pub(super) opened_kib: u64,
    /// After they have been idle for a while.
    pub(super) idle_kib: u64,
}

/// The result of one iperf3 job.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct NetFigure {
    pub(super) job: String,
    /// Throughput measured by the receiver.
    pub(super) mbit_per_s: f64,
    /// Lost datagrams (UDP).
    pub(super) lost_percent: Option<f64>,
    /// Retransmitted segments (TCP).
    pub(super) retransmits: Option<u64>,
    /// `None` for the veth pair.
    pub(super) costs: Option<Costs>,
}

/// Specification of the snapshot benchmark.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct SnapshotSpec {
    pub(super) rounds: u32,
    /// Timeout of each guest.
    pub(super) timeout_s: u64,
    pub(super) warm: Vec<PathBuf>,
    /// The monitor's command, to which a control socket is added.
    pub(super) guest: Contender,
    /// What the guest prints when it can be saved.
    pub(super) ready: String,
    /// What is typed to a restored guest, and its answer.
    pub(super) typed: String,
    pub(super) echoed: String,
}

/// One machine that was saved and restored.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct SnapshotSample {
    /// Time that the command took that saves it.
    pub(super) save_ms: f64,
    /// Time from exec of the restore to the first KVM_RUN, as logged by vmm-bin.
    pub(super) first_run_us: u64,
    /// The steps of that time, as logged.
    pub(super) steps: Vec<(String, u64)>,
    /// Time from exec of the restore to the guest's answer.
    pub(super) echo_ms: f64,
}
