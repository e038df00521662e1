//! Linux is saved and restored: each kernel, number of processors, size of memory and transport.

use driver::{DEADLINE, Monitor};
use libtest_mimic::Trial;
use rig::KernelKind;
use tempfile::TempDir;

use crate::initrd::{CMDLINE, initrd_with_modules_of};
use crate::linux::{Image, InitUp, image_path};
use crate::saved::{LogLen, Machine};

/// A machine, and what becomes of it.
#[derive(Clone, Copy, Debug)]
struct Case {
    kernel: KernelKind,
    cpus: u64,
    memory: &'static str,
    transport: &'static str,
    after: After,
}

/// What happens to the machine, and to the snapshot.
#[derive(Clone, Copy, Debug)]
enum After {
    /// The machine goes on, and the snapshot is continued beside it.
    GoesOn,
    /// The machine goes on, and the snapshot is continued twice at the same time.
    GoesOnBesideTwo,
    /// The machine ends.
    Stops,
}

/// With each value once at least. One of the kernels comes with 5 GiB, part of which lie above 4 GiB.
const CHOSEN: [Case; 3] = [
    Case {
        kernel: KernelKind::Cloud61,
        cpus: 1,
        memory: "512M",
        transport: "pci",
        after: After::GoesOnBesideTwo,
    },
    Case { kernel: KernelKind::Cloud612, cpus: 4, memory: "5G", transport: "mmio", after: After::Stops },
    Case { kernel: KernelKind::Generic61, cpus: 4, memory: "512M", transport: "pci", after: After::GoesOn },
];

impl Case {
    fn name(&self) -> String {
        let kernel = self.kernel.name().replace(['-', '.'], "_");
        let memory = self.memory.to_lowercase();
        format!("snapshot_{kernel}_with_{}_processors_{memory}_by_{}_is_continued", self.cpus, self.transport)
    }
}

pub(crate) fn tests() -> Vec<Trial> {
    let trial = |case: Case| {
        Trial::test(case.name(), move || {
            check(case);
            Ok(())
        })
    };
    let chosen = CHOSEN.map(trial);
    let is_chosen = |case: &Case| CHOSEN.iter().any(|chosen| chosen.name() == case.name());
    let others = all().into_iter().filter(|case| !is_chosen(case)).map(trial);
    chosen.into_iter().chain(others.map(|test| test.with_ignored_flag(true))).collect()
}

/// The product of all values.
fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for kernel in KernelKind::ALL {
        for cpus in [1, 4] {
            for memory in ["512M", "5G"] {
                let case =
                    |transport| Case { kernel, cpus, memory, transport, after: After::GoesOnBesideTwo };
                cases.extend(["mmio", "pci"].map(case));
            }
        }
    }
    cases
}

/// Boots the guest. Its disk is only read, so that machines can share it.
fn boot(case: Case, dir: &TempDir) -> Machine {
    let disk: Vec<u8> = (0..1_u32 << 20).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    std::fs::write(dir.path().join("disk"), disk).expect("room for a disk");
    let Case { kernel, cpus, memory, transport, .. } = case;
    let config = format!(
        r#"{{"cpus": {{"count": {cpus}}}, "memory": {{"size": "{memory}"}}, "transport": "{transport}", "devices": [
            {{"type": "block", "path": "disk", "read_only": true}}, {{"type": "net", "backend": "user"}},
            {{"type": "rng"}}, {{"type": "balloon"}}]}}"#
    );
    std::fs::write(dir.path().join("vm.json"), config).expect("room for a config");
    let transport = format!("virtio_{transport}");
    let drivers = [&transport, "virtio_blk", "virtio_net", "virtio_rng", "virtio_balloon"];
    let initrd = initrd_with_modules_of(kernel, &drivers);
    let launch = Monitor::command(["--config", "vm.json", "--cmdline", CMDLINE])
        .args(["--kernel".into(), image_path((kernel, Image::Vmlinux))])
        .args(["--initrd".as_ref(), initrd.path().as_os_str()]);
    Machine::boot(launch, dir.path(), "source.sock")
}

const DISK_HASH: &str = "echo 3 >/proc/sys/vm/drop_caches; md5sum </dev/vda";

fn check(case: Case) {
    let dir = TempDir::new().expect("a temporary directory");
    let mut machine = boot(case, &dir).assert_echoes_and_mute();
    assert_eq!(machine.shell.up.cpus, case.cpus);
    let said = machine.shell.run("sh /modules/load; ip link set lo up; udhcpc -n -q -i eth0 2>&1");
    assert!(said.contains("lease of 10.0.2.15 obtained"), "{said}");
    let hash = machine.shell.run(DISK_HASH);
    machine.shell.run("kept=$((6*7)); head -c 1000000 /dev/urandom >/tmp/file; md5sum </tmp/file >/tmp/hash");
    let log = machine.log_len();
    machine.unmute();
    let lives = |machine: Machine| assert_lives(machine, &hash, log);
    let restore = |socket, up: &InitUp| Machine::restore(dir.path(), "snap", socket, up.clone());
    match case.after {
        After::Stops => {
            let up = machine.save_and_stop("snap");
            lives(restore("one.sock", &up)).power_off();
        }
        After::GoesOn => {
            machine.save("snap");
            let machine = lives(machine);
            lives(restore("one.sock", &machine.shell.up)).power_off();
            machine.power_off();
        }
        After::GoesOnBesideTwo => {
            machine.save("snap");
            let up = machine.shell.up.clone();
            let (one, two) = (restore("one.sock", &up), restore("two.sock", &up));
            let [machine, mut one, mut two] = [machine, one, two].map(lives);
            // Each has memory of its own.
            one.shell.run("kept=one");
            two.shell.run("kept=two");
            assert_eq!([one.shell.run("echo $kept"), two.shell.run("echo $kept")], ["one\n", "two\n"]);
            [machine, one, two].into_iter().for_each(Machine::power_off);
        }
    }
}

/// Checks a guest that continues. It has a disk with this hash, and had a log of this length.
#[track_caller]
fn assert_lives(machine: Machine, disk_hash: &str, log: LogLen) -> Machine {
    let mut machine = machine.assert_echoes_and_mute();
    assert_eq!(
        machine.shell.run("echo $kept; md5sum </tmp/file | cmp - /tmp/hash && echo same"),
        "42\nsame\n"
    );
    machine.assert_time_passes();
    assert_eq!(machine.shell.run(DISK_HASH), disk_hash);
    let said = machine.shell.run_within("ping -c 1 -W 20 10.0.2.2", DEADLINE);
    assert!(said.contains(" 0% packet loss"), "{said}");
    assert_eq!(machine.shell.run("head -c 64 /dev/hwrng | wc -c"), "64\n");
    machine.assert_no_warning_since(log);
    machine
}
