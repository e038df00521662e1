//! `cargo xtask bench memory`: the monitor's own memory per device and per vCPU. The same guest idles on machines with different
//! numbers of them, and the difference in memory is divided by the difference in number.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rig::{Assets, Initramfs, KernelKind, note};
use serde_json::json;

use super::contenders::{OUR_ARGUMENTS, Placeholders, QEMU_COMMAND, find_monitor, has_qemu};
use super::halves;
use super::part::Part;
use super::spec::{Machine, MemorySample, MemorySpec};
use super::stats::{median, shown};
use crate::failure::Failure;
use crate::workspace;

const CMDLINE: &str = "console=ttyS0 reboot=k panic=-1 quiet";
const KERNEL: KernelKind = KernelKind::Cloud61;
/// The guest's init loads the drivers, uses each device once, prints their number, and waits.
const INIT: &str = include_str!("../../../resources/bench/devices-init");
const MODULES: [&str; 4] = ["virtio_pci", "virtio_mmio", "virtio_blk", "virtio-rng"];
const MEM_MIB: u32 = 256;
/// A boot with five processors takes half a minute in the rig.
const RUN_TIMEOUT_S: u64 = 120;
const DISK_LEN: usize = 1 << 20;
const QEMU_DISK: &str = "-drive id=d{n},file={disk},format=raw,if=none,readonly=on,file.locking=off,aio=io_uring \
    -device virtio-blk-device,drive=d{n}";
const QEMU_RNG: &str = "-device virtio-rng-device";

/// Numbers of vCPUs and devices of a machine.
struct Shape {
    what: &'static str,
    cpus: u32,
    disks: u32,
    rngs: u32,
}

/// The machines. The others are compared with the first.
const SHAPES: [Shape; 4] = [
    Shape { what: "one vCPU, no devices", cpus: 1, disks: 0, rngs: 0 },
    Shape { what: "each further vCPU", cpus: 5, disks: 0, rngs: 0 },
    Shape { what: "each block device", cpus: 1, disks: 8, rngs: 0 },
    Shape { what: "each rng device", cpus: 1, disks: 0, rngs: 8 },
];

impl Shape {
    /// Number of additional vCPUs and devices, compared with the first shape.
    fn more_than_first(&self) -> u32 {
        (self.cpus - SHAPES[0].cpus) + self.devices()
    }

    fn devices(&self) -> u32 {
        self.disks + self.rngs
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of rounds; each round starts every machine once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure this monitor instead of building vmm-bin
    #[arg(long, value_name = "PATH")]
    monitor: Option<PathBuf>,
    /// Use the rig even if this host's KVM runs Linux
    #[arg(long)]
    rig: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let assets = Assets::at(workspace::root());
    let (kernel, busybox) = (assets.kernel(KERNEL)?, assets.busybox()?);
    let busybox_path = busybox.to_string_lossy().into_owned();
    let inputs = [&[INIT, kernel.release(), &busybox_path], &MODULES[..]].concat();
    let initrd = assets.initrd("bench-devices", &inputs, || {
        Initramfs::new(&busybox, INIT)?.modules(&kernel.modules(&MODULES)?)
    })?;
    let (vmlinuz, vmlinux) = (kernel.vmlinuz(), kernel.vmlinux()?);
    let placeholders = Placeholders::default()
        .with("monitor", find_monitor(arguments.monitor.as_deref())?.to_string_lossy())
        .with("kernel", vmlinuz.to_string_lossy())
        .with("vmlinux", vmlinux.to_string_lossy())
        .with("initrd", initrd.to_string_lossy())
        .with("cmdline", CMDLINE)
        .with("mem_mib", MEM_MIB.to_string())
        .with("disk", halves::write("memory.disk", &[0].repeat(DISK_LEN))?.to_string_lossy());
    let mut machines =
        SHAPES.iter().map(|shape| our_machine(shape, &placeholders)).collect::<Result<Vec<_>, _>>()?;
    if has_qemu() {
        machines.extend(
            SHAPES.iter().map(|shape| qemu_machine(shape, &placeholders)).collect::<Result<Vec<_>, _>>()?,
        );
    }
    let spec = MemorySpec {
        rounds: arguments.rounds,
        mem_mib: MEM_MIB,
        timeout_s: RUN_TIMEOUT_S,
        warm: vec![vmlinuz, vmlinux, initrd],
        machines,
    };
    let all = u64::from(spec.rounds) * spec.machines.len() as u64 * RUN_TIMEOUT_S;
    note(&format!("{} machines, {} rounds", spec.machines.len(), spec.rounds));
    let timeout = Duration::from_secs(120 + all);
    let samples: Vec<MemorySample> = halves::measure(Part::Memory, &spec, timeout, (&assets, arguments.rig))?;
    print(&spec, &samples);
    Ok(ExitCode::SUCCESS)
}

fn our_machine(shape: &Shape, placeholders: &Placeholders) -> Result<Machine, Failure> {
    let disk = placeholders.of("disk").unwrap_or_default();
    let disks =
        (0..shape.disks).map(|_| json!({ "type": "block", "path": Path::new(disk), "read_only": true }));
    let rngs = (0..shape.rngs).map(|_| json!({ "type": "rng" }));
    let config = json!({ "devices": disks.chain(rngs).collect::<Vec<_>>() });
    let name = format!("memory-{}-{}-{}.json", shape.cpus, shape.disks, shape.rngs);
    let config = halves::write(&name, config.to_string().as_bytes())?;
    let placeholders = placeholders.clone().with("config", config.to_string_lossy());
    let command = format!("{{monitor}} --config {{config}} --kernel {{vmlinux}} {OUR_ARGUMENTS}");
    machine("vmm-bin", &command, shape, placeholders)
}

fn qemu_machine(shape: &Shape, placeholders: &Placeholders) -> Result<Machine, Failure> {
    let disks = (0..shape.disks).map(|number| QEMU_DISK.replace("{n}", &number.to_string()));
    let rngs = (0..shape.rngs).map(|_| QEMU_RNG.to_owned());
    let words: Vec<String> = [QEMU_COMMAND.to_owned()].into_iter().chain(disks).chain(rngs).collect();
    machine("QEMU microvm", &words.join(" "), shape, placeholders.clone())
}

fn machine(
    monitor: &str,
    command: &str,
    shape: &Shape,
    placeholders: Placeholders,
) -> Result<Machine, Failure> {
    let contender = placeholders.with("cpus", shape.cpus.to_string()).contender(monitor, command)?;
    let name = format!("{monitor}, {} vCPUs, {} block, {} rng", shape.cpus, shape.disks, shape.rngs);
    Ok(Machine { name, argv: contender.argv, devices: shape.devices() })
}

/// Prints a table with a column per monitor: the memory of the smallest machine, and the memory that each further vCPU or device adds.
fn print(spec: &MemorySpec, samples: &[MemorySample]) {
    let monitors = spec.machines.chunks(SHAPES.len()).map(|machines| machines[0].name.split(',').next());
    println!();
    print!("{:<24}", "");
    monitors.for_each(|name| print!(" {:>16}", name.unwrap_or_default()));
    println!();
    for (row, shape) in SHAPES.iter().enumerate() {
        print!("{:<24}", shape.what);
        for first in (0..spec.machines.len()).step_by(SHAPES.len()) {
            let kib = |machine: usize, round: u32| {
                let is_it = |sample: &&MemorySample| sample.machine == machine && sample.round == round;
                samples.iter().find(is_it)?.private_kib.map(|kib| kib as f64)
            };
            let each = |round| match shape.more_than_first() {
                0 => kib(first, round),
                more => Some((kib(first + row, round)? - kib(first, round)?) / f64::from(more)),
            };
            let middle = median((0..spec.rounds).filter_map(each).collect());
            print!(" {:>12} KiB", shown(middle, 0));
        }
        println!();
    }
    println!("medians of {} rounds; private memory of the monitor without guest RAM", spec.rounds);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_differ_from_the_first_in_one_thing() {
        let differences: Vec<u32> = SHAPES.iter().map(Shape::more_than_first).collect();
        assert_eq!(differences, [0, 4, 8, 8]);
    }
}
