//! `cargo xtask bench snapshot`: how long it takes to save a machine of 512 MiB, and to restore it. A bare-metal guest is measured on any
//! `/dev/kvm`, and Linux in the rig if this host's KVM can't run it. Both have one vCPU, and all walls are up.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rig::{Assets, KernelKind, Reason, note, reason_for_rig};

use super::contenders::{OUR_ARGUMENTS, Placeholders, find_monitor};
use super::halves;
use super::part::Part;
use super::spec::{SnapshotSample, SnapshotSpec};
use super::stats::{median, shown};
use crate::failure::Failure;
use crate::workspace;

const CMDLINE: &str = "console=ttyS0 reboot=k panic=-1 quiet";
const KERNEL: KernelKind = KernelKind::Cloud61;
const MEM_MIB: &str = "512";
/// Timeout of each guest. A boot takes 5 s in the rig.
const TIMEOUT_S: u64 = 60;
/// Maximum time of a round: a save, a restore and its answer.
const ROUND_S: u64 = 30;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of rounds; each round saves the machine and restores it
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure this monitor instead of building vmm-bin
    #[arg(long, value_name = "PATH")]
    monitor: Option<PathBuf>,
    /// Use the rig for Linux even if this host's KVM runs it
    #[arg(long)]
    rig: bool,
}

/// What is to be reached, in ms.
struct Goals {
    save: Option<f64>,
    first_run: Option<f64>,
    echo: Option<f64>,
}

/// Of the bare-metal guest, on a host that isn't emulated.
const FLAT_GOALS: Goals = Goals { save: None, first_run: Some(10.0), echo: None };
/// Of Linux in the rig: half of what Firecracker 1.17-dev takes there without its filters.
const RIG_GOALS: Goals = Goals { save: Some(1700.0), first_run: Some(75.0), echo: Some(125.0) };

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let assets = Assets::at(workspace::root());
    let monitor = find_monitor(arguments.monitor.as_deref())?;
    let (flat, linux) = (flat(arguments.rounds, &monitor)?, linux(arguments.rounds, &monitor, &assets)?);
    let timeout = Duration::from_secs(120 + TIMEOUT_S + u64::from(arguments.rounds) * ROUND_S);
    note(&format!("{} rounds with each guest", arguments.rounds));
    let flat_in_rig = !matches!(reason_for_rig(), None | Some(Reason::SoftwareKvm));
    let of_flat: Vec<SnapshotSample> =
        halves::measure_in(flat_in_rig, Part::Snapshot, &flat, timeout, &assets)?;
    print(&flat, &of_flat, (!flat_in_rig).then_some(&FLAT_GOALS));
    let linux_in_rig = halves::in_rig(arguments.rig);
    let of_linux: Vec<SnapshotSample> =
        halves::measure_in(linux_in_rig, Part::Snapshot, &linux, timeout, &assets)?;
    print(&linux, &of_linux, linux_in_rig.then_some(&RIG_GOALS));
    Ok(ExitCode::SUCCESS)
}

/// A guest of a few instructions that echoes what is typed.
fn flat(rounds: u32, monitor: &Path) -> Result<SnapshotSpec, Failure> {
    let guest = driver::guests::path("echo");
    let placeholders = Placeholders::default()
        .with("monitor", monitor.to_string_lossy())
        .with("guest", guest.to_string_lossy())
        .with("mem_mib", MEM_MIB);
    Ok(SnapshotSpec {
        rounds,
        timeout_s: TIMEOUT_S,
        warm: vec![guest],
        guest: placeholders
            .contender("bare-metal guest", "{monitor} --kernel {guest} --memory {mem_mib}M")?,
        ready: "ready".to_owned(),
        typed: "x".to_owned(),
        echoed: "x".to_owned(),
    })
}

/// Linux, whose shell answers.
fn linux(rounds: u32, monitor: &Path, assets: &Assets) -> Result<SnapshotSpec, Failure> {
    let (vmlinux, initrd) = (assets.kernel(KERNEL)?.vmlinux()?, assets.guest_initrd()?);
    let placeholders = Placeholders::default()
        .with("monitor", monitor.to_string_lossy())
        .with("vmlinux", vmlinux.to_string_lossy())
        .with("initrd", initrd.to_string_lossy())
        .with("cmdline", CMDLINE)
        .with("mem_mib", MEM_MIB)
        .with("cpus", "1");
    Ok(SnapshotSpec {
        rounds,
        timeout_s: TIMEOUT_S,
        warm: vec![vmlinux, initrd],
        guest: placeholders
            .contender("Linux", &format!("{{monitor}} --kernel {{vmlinux}} {OUR_ARGUMENTS}"))?,
        ready: "~ # ".to_owned(),
        typed: "echo it is $((6 * 7))\n".to_owned(),
        echoed: "it is 42".to_owned(),
    })
}

fn print(spec: &SnapshotSpec, samples: &[SnapshotSample], goals: Option<&Goals>) {
    let middle = |value: fn(&SnapshotSample) -> f64| median(samples.iter().map(value).collect());
    let rows = [
        ("saved by ctl", middle(|sample| sample.save_ms), goals.and_then(|goals| goals.save)),
        (
            "exec to first KVM_RUN",
            middle(|sample| sample.first_run_us as f64 / 1000.0),
            goals.and_then(|goals| goals.first_run),
        ),
        ("exec to the first answer", middle(|sample| sample.echo_ms), goals.and_then(|goals| goals.echo)),
    ];
    println!("\n{}, {MEM_MIB} MiB, medians of {} rounds", spec.guest.name, spec.rounds);
    for (name, value, goal) in rows {
        let is_met = |goal: f64| if value.is_some_and(|value| value <= goal) { "met" } else { "missed" };
        let told = goal.map(|goal| format!("  goal: {goal:.0} ms: {}", is_met(goal))).unwrap_or_default();
        println!("{name:<26} {:>9} ms{told}", shown(value, 1));
    }
    for (index, (name, _)) in samples.first().into_iter().flat_map(|sample| &sample.steps).enumerate() {
        let times = samples.iter().filter_map(|sample| Some(sample.steps.get(index)?.1 as f64 / 1000.0));
        println!("  of it {name:<18} {:>11} ms", shown(median(times.collect()), 2));
    }
}
