//! `cargo xtask bench net`: compares network throughput in a guest with that of a veth pair between two namespaces and with other
//! monitors. In each round, all of them run the same iperf3 jobs, one after another, with the same server.
//!
//! Everything runs in a separate network namespace: the host's network is neither used nor changed.

pub(super) mod iperf3;
mod report;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rig::packages::{find_program, install};
use rig::{Assets, Initramfs, Kernel, KernelKind, note};
use serde_json::json;

use super::contenders::{Placeholders, find_monitor};
use super::halves;
use super::part::Part;
use super::spec::{NetKind, NetResults, NetSpec};
use crate::failure::Failure;
use crate::workspace;

const KERNEL: KernelKind = KernelKind::Cloud61;
const MODULES: [&str; 3] = ["virtio_pci", "virtio_mmio", "virtio_net"];
/// The guest's init, which opens idle connections and then runs the jobs.
const INIT: &str = include_str!("../../../resources/bench/net-init");
const FLOWS: &str = include_str!("../../../resources/bench/net-flows");
const MARK: &str = include_str!("../../../resources/bench/mark");
/// Time for a boot; with four processors it takes a minute in the rig.
const BOOT_S: u64 = 120;
/// Additional time per job, for its setup.
const JOB_EXTRA_S: u64 = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of rounds; each round runs all jobs on each contender
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Duration of each job in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Guest memory in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory: u32,
    /// Number of idle connections with which the memory of user mode is measured; 0 for none
    #[arg(long, default_value_t = 1000)]
    flows: u32,
    /// Measure only these [default: tap, tap-mmio, tap4, vhost, vhost-mmio, user; also qemu, qemu4 if QEMU is installed and there is no --peer]
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    only: Vec<NetKind>,
    /// Another monitor's command, with the placeholders {kernel} (bzImage), {vmlinux}, {initrd}, {cmdline}, {mem_mib}, {cpus} and {tap}
    /// (an existing TAP) [default: QEMU's microvm, if installed]
    #[arg(long, value_name = "NAME=COMMAND")]
    peer: Vec<String>,
    /// Measure this monitor instead of building vmm-bin
    #[arg(long, value_name = "PATH")]
    monitor: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Use the rig even if this host's KVM runs Linux
    #[arg(long)]
    rig: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let assets = Assets::at(workspace::root());
    if find_program("ip").is_none() && !Path::new("/sbin/ip").exists() {
        install(&["iproute2"])?;
    }
    let spec = arguments.spec(&assets)?;
    let jobs = iperf3::JOBS.len() as u64 * (u64::from(spec.seconds) + JOB_EXTRA_S);
    let round = jobs + spec.contenders.len() as u64 * (jobs + BOOT_S);
    note(&format!("{} rounds of {} jobs, {} s each", spec.rounds, iperf3::JOBS.len(), spec.seconds));
    let timeout = Duration::from_secs(120 + u64::from(spec.rounds) * round);
    let results: NetResults = halves::measure(Part::Net, &spec, timeout, (&assets, arguments.rig))?;
    if arguments.json {
        println!("{:#}", json!({ "spec": spec, "results": results }));
    } else {
        report::print(&spec, &results);
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn spec(&self, assets: &Assets) -> Result<NetSpec, Failure> {
        let (kernel, programs) = (assets.kernel(KERNEL)?, assets.iperf3()?);
        let (vmlinuz, vmlinux) = (kernel.vmlinuz(), kernel.vmlinux()?);
        let initrd = initrd(assets, &kernel, &programs)?;
        let placeholders = Placeholders::default()
            .with("monitor", find_monitor(self.monitor.as_deref())?.to_string_lossy())
            .with("kernel", vmlinuz.to_string_lossy())
            .with("vmlinux", vmlinux.to_string_lossy())
            .with("initrd", initrd.to_string_lossy())
            .with("mem_mib", self.memory.to_string())
            .with("seconds", self.seconds.to_string())
            .with("flows", self.flows.to_string());
        let iperf3 = rig::programs::command(&programs, "iperf3");
        Ok(NetSpec {
            rounds: self.rounds,
            seconds: self.seconds,
            timeout_s: BOOT_S + iperf3::JOBS.len() as u64 * (u64::from(self.seconds) + JOB_EXTRA_S),
            mem_mib: self.memory,
            flows: self.flows,
            warm: vec![vmlinuz, vmlinux, initrd],
            iperf3: iperf3.map(|word| word.to_string_lossy().into_owned()).to_vec(),
            contenders: table::contenders(&self.only, &self.peer, &placeholders, halves::write)?,
        })
    }
}

/// The initramfs of all guests: Busybox, the drivers, and the directory `programs` as /opt/net.
fn initrd(assets: &Assets, kernel: &Kernel, programs: &Path) -> Result<PathBuf, Failure> {
    let busybox = assets.busybox()?;
    let (busybox_path, programs_path) = (busybox.to_string_lossy(), programs.to_string_lossy());
    let inputs = [INIT, iperf3::JOBS_TEXT, FLOWS, MARK, kernel.release(), &busybox_path, &programs_path];
    let path = assets.initrd("bench-net", &inputs, || {
        let mut initramfs = Initramfs::new(&busybox, INIT)?
            .file("etc/net-jobs", 0o644, iperf3::JOBS_TEXT.as_bytes())
            .file("etc/net-flows", 0o644, FLOWS.as_bytes())
            .file("bin/mark", 0o755, MARK.as_bytes())
            .dir("opt")
            .dir("opt/net");
        for (name, contents) in rig::programs::files(programs)? {
            initramfs = initramfs.file(&format!("opt/net/{name}"), 0o755, &contents);
        }
        initramfs.modules(&kernel.modules(&MODULES)?)
    })?;
    Ok(path)
}
