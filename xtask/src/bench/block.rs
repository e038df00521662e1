//! `cargo xtask bench block`: compares disk throughput in a guest with that of the disk's file on the host and with other monitors.
//! In each round, all of them run the same fio jobs, one after another.

pub(super) mod fio;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rig::{Assets, KernelKind, Rootfs, note};
use serde_json::json;

use super::contenders::{OUR_ARGUMENTS, Placeholders, QEMU_COMMAND, find_monitor, peers};
use super::halves;
use super::part::Part;
use super::spec::{BlockSample, BlockSpec};
use crate::failure::Failure;
use crate::workspace;

/// The root is found by its label, because its device name depends on the monitor.
const CMDLINE: &str = "console=ttyS0 root=LABEL=rootfs ro init=/sbin/measure reboot=k panic=-1 quiet";
/// The kernel whose modules are in the initramfs.
const KERNEL: KernelKind = KernelKind::Cloud61;
/// QEMU's read-only root disk and the disk to measure, with the modern virtio-mmio registers, which vmm-bin has as well.
const QEMU_DISKS: &str = "-global virtio-mmio.force-legacy=false \
    -drive id=root,file={root},format=raw,if=none,readonly=on,file.locking=off -device virtio-blk-device,drive=root \
    -drive id=disk,file={disk},format=raw,if=none,aio=io_uring,cache.direct={direct} \
    -device virtio-blk-device,drive=disk,num-queues={cpus}";
/// Time for a boot, which takes 15 s in the rig, and for starting fio, which takes 5 s.
const BOOT_S: u64 = 60;
/// Additional time per job, for its setup.
const JOB_EXTRA_S: u64 = 3;
/// The disk's directory in the rig, whose files are in memory anyway.
const RIG_DIR: &str = "/dev/shm";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of rounds; each round runs all jobs on each monitor
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Duration of each job in seconds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Guest memory in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory: u32,
    /// Number of vCPUs and of the disk's queues
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Size of the disk in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    disk: u32,
    /// Directory of the disk's file [default: the directory for temporary files; in the rig, /dev/shm]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Bypass the host's page cache; not possible for a file in memory
    #[arg(long)]
    direct: bool,
    /// Another monitor's command, with the placeholders {kernel} (bzImage), {vmlinux}, {initrd}, {cmdline}, {mem_mib}, {cpus}, {root}
    /// (a read-only disk) and {disk} [default: QEMU's microvm, if installed]
    #[arg(long, value_name = "NAME=COMMAND")]
    peer: Vec<String>,
    /// Measure this monitor instead of building vmm-bin
    #[arg(long, value_name = "PATH")]
    monitor: Option<PathBuf>,
    /// Use the rig even if this host's KVM runs Linux
    #[arg(long)]
    rig: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let assets = Assets::at(workspace::root());
    let spec = arguments.spec(&assets)?;
    let guests = spec.contenders.len() as u64;
    let each =
        (guests + 1) * fio::JOBS.len() as u64 * (u64::from(spec.seconds) + JOB_EXTRA_S) + guests * BOOT_S;
    let timeout = Duration::from_secs(120 + u64::from(spec.rounds) * each);
    note(&format!("{} rounds of {} jobs, {} s each", spec.rounds, fio::JOBS.len(), spec.seconds));
    let samples: Vec<BlockSample> = halves::measure(Part::Block, &spec, timeout, (&assets, arguments.rig))?;
    report::print(&spec, &samples);
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn spec(&self, assets: &Assets) -> Result<BlockSpec, Failure> {
        let kernel = assets.kernel(KERNEL)?;
        let (vmlinuz, vmlinux) = (kernel.vmlinuz(), kernel.vmlinux()?);
        let (initrd, root) = (assets.disk_initrd(KERNEL)?, assets.rootfs(Rootfs::Fio)?);
        let disk = self.disk_path();
        let devices = json!([
            { "type": "block", "id": "root", "path": root, "read_only": true },
            { "type": "block", "id": "disk", "path": disk, "direct": self.direct },
        ]);
        let config = |name: &str, transport: &str| {
            let config = json!({ "transport": transport, "devices": devices });
            halves::write(name, config.to_string().as_bytes())
        };
        let (pci, mmio) = (config("block.json", "pci")?, config("block-mmio.json", "mmio")?);
        let monitor = find_monitor(self.monitor.as_deref())?;
        let placeholders = Placeholders::default()
            .with("monitor", monitor.to_string_lossy())
            .with("pci", pci.to_string_lossy())
            .with("mmio", mmio.to_string_lossy())
            .with("kernel", vmlinuz.to_string_lossy())
            .with("vmlinux", vmlinux.to_string_lossy())
            .with("initrd", initrd.to_string_lossy())
            .with("cmdline", format!("{CMDLINE} fio.seconds={}", self.seconds))
            .with("mem_mib", self.memory.to_string())
            .with("cpus", self.cpus.to_string())
            .with("root", root.to_string_lossy())
            .with("disk", disk.to_string_lossy())
            .with("direct", if self.direct { "on" } else { "off" });
        let ours = |config| format!("{{monitor}} --config {{{config}}} --kernel {{vmlinux}} {OUR_ARGUMENTS}");
        let mut contenders = vec![
            placeholders.contender(report::PCI, &ours("pci"))?,
            placeholders.contender(report::MMIO, &ours("mmio"))?,
        ];
        contenders.extend(peers(
            &self.peer,
            ("QEMU microvm", &format!("{QEMU_COMMAND} {QEMU_DISKS}")),
            &placeholders,
        )?);
        Ok(BlockSpec {
            rounds: self.rounds,
            seconds: self.seconds,
            timeout_s: BOOT_S + fio::JOBS.len() as u64 * (u64::from(self.seconds) + JOB_EXTRA_S),
            warm: vec![vmlinuz, vmlinux, initrd, root],
            disk,
            disk_mib: self.disk,
            direct: self.direct,
            fio: host_fio(assets)?,
            contenders,
        })
    }

    fn disk_path(&self) -> PathBuf {
        let default = || if halves::in_rig(self.rig) { RIG_DIR.into() } else { std::env::temp_dir() };
        let dir = self.dir.clone().unwrap_or_else(default);
        dir.join(format!("bench-disk-{}", std::process::id()))
    }
}

/// The command that runs fio on the host: the same program and jobs as in the guests.
fn host_fio(assets: &Assets) -> Result<Vec<String>, Failure> {
    let jobs = halves::write("fio-jobs", rig::fio::JOBS.as_bytes())?;
    let program = rig::fio::command(&assets.fio()?).map(|word| word.to_string_lossy().into_owned());
    let words = ["--output-format=terse", "--terse-version=3", "--eta=never"].map(str::to_owned);
    Ok(program.into_iter().chain(words).chain([jobs.to_string_lossy().into_owned()]).collect())
}
