//! `cargo xtask bench`: compares start-up time and memory of this monitor and others, with the same kernel and initramfs, in
//! interleaved runs, so that noise affects all of them alike.
//!
//! The outer half prepares and reports; [`inner`] measures, in the rig if this host's KVM can't run Linux. [`exits`] is a
//! separate benchmark that runs afterwards; [`block`], [`net`], [`memory`] and [`snapshot`] take longer and only run when requested.

mod block;
mod contenders;
mod exits;
mod halves;
pub(crate) mod inner;
mod memory;
mod net;
mod part;
mod report;
mod snapshot;
mod spec;
mod stats;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rig::{Assets, KernelKind, note};

use self::contenders::{OUR_ARGUMENTS, Placeholders, QEMU_COMMAND, find_monitor, peers};
use self::part::Part;
use self::spec::{Contender, Sample, Spec};
use crate::failure::Failure;
use crate::workspace;

const CMDLINE: &str = "console=ttyS0 reboot=k panic=-1 quiet";
/// Timeout of a run. The slowest known monitor needs 14 s in the rig.
const RUN_TIMEOUT_S: u64 = 60;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    benchmark: Option<Benchmark>,
    /// Runs of each monitor
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Guest memory in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory: u32,
    /// Another monitor's command, with the placeholders {kernel} (bzImage), {vmlinux}, {initrd}, {cmdline} and {mem_mib} [default:
    /// QEMU's microvm, if installed]
    #[arg(long, value_name = "NAME=COMMAND")]
    peer: Vec<String>,
    /// Measure this monitor instead of building vmm-bin
    #[arg(long, value_name = "PATH")]
    monitor: Option<PathBuf>,
    /// Don't measure vmm-bin
    #[arg(long)]
    peers_only: bool,
    /// Use the rig even if this host's KVM runs Linux
    #[arg(long)]
    rig: bool,
}

/// A single benchmark.
#[derive(Debug, clap::Subcommand)]
enum Benchmark {
    /// Exits per second, compared with a minimal loop on kvm-ioctls
    Exits(exits::Arguments),
    /// Disk throughput in a guest, compared with the file on the host and with other monitors
    Block(block::Arguments),
    /// Network throughput in a guest, compared with a veth pair and with other monitors
    Net(net::Arguments),
    /// The monitor's memory per device and per vCPU
    Memory(memory::Arguments),
    /// Time to save a machine and to restore it
    Snapshot(snapshot::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.benchmark {
        None => start_up(arguments),
        Some(Benchmark::Exits(arguments)) => exits::run(arguments),
        Some(Benchmark::Block(arguments)) => block::run(arguments),
        Some(Benchmark::Net(arguments)) => net::run(arguments),
        Some(Benchmark::Memory(arguments)) => memory::run(arguments),
        Some(Benchmark::Snapshot(arguments)) => snapshot::run(arguments),
    }
}

fn start_up(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let assets = Assets::at(workspace::root());
    let kernel = assets.kernel(KernelKind::Cloud61)?;
    let (vmlinuz, vmlinux, initrd) = (kernel.vmlinuz(), kernel.vmlinux()?, assets.guest_initrd()?);
    let placeholders = Placeholders::default()
        .with("kernel", vmlinuz.to_string_lossy())
        .with("vmlinux", vmlinux.to_string_lossy())
        .with("initrd", initrd.to_string_lossy())
        .with("cmdline", CMDLINE)
        .with("mem_mib", arguments.memory.to_string())
        .with("cpus", "1");
    let mut contenders = Vec::new();
    let mut monitor = None;
    if !arguments.peers_only {
        let path = find_monitor(arguments.monitor.as_deref())?;
        contenders.extend(ours(&path, &placeholders)?);
        monitor = Some(path);
    }
    contenders.extend(peers(&arguments.peer, ("QEMU microvm, bzImage", QEMU_COMMAND), &placeholders)?);
    let spec = Spec {
        runs: arguments.runs,
        mem_mib: arguments.memory,
        timeout_s: RUN_TIMEOUT_S,
        warm: vec![vmlinuz, vmlinux, initrd],
        contenders,
    };
    note(&format!("kernel {}, {} MiB, {} runs each", kernel.release(), spec.mem_mib, spec.runs));
    let each = u64::from(spec.runs) * spec.contenders.len() as u64 * (spec.timeout_s + 10);
    let timeout = Duration::from_secs(120 + each);
    let samples: Vec<Sample> = halves::measure(Part::Start, &spec, timeout, (&assets, arguments.rig))?;
    report::print(&spec, &samples, monitor.as_deref());
    // The exit benchmark measures this workspace's crates, which is of no interest when other monitors or builds are measured.
    if arguments.peers_only || arguments.monitor.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    println!();
    exits::run(&exits::Arguments::with_rig(arguments.rig))
}

fn ours(monitor: &Path, placeholders: &Placeholders) -> Result<[Contender; 2], Failure> {
    let placeholders = placeholders.clone().with("monitor", monitor.to_string_lossy());
    let with = |name: &str, kernel: &str| {
        placeholders.contender(name, &format!("{{monitor}} -v --kernel {kernel} {OUR_ARGUMENTS}"))
    };
    Ok([with("vmm-bin, ELF", "{vmlinux}")?, with("vmm-bin, bzImage", "{kernel}")?])
}
