//! Virtio devices on PCI with the drivers of stock kernels.

use std::path::Path;

use driver::DEADLINE;
use harness::trials;
use libtest_mimic::Trial;
use rig::{Assets, KernelKind};
use tempfile::NamedTempFile;

use crate::initrd::{
    CMDLINE, initrd_with, initrd_with_all, initrd_with_files, initrd_with_modules_of, shell_of, shell_with,
};
use crate::linux::{ANY, BOOT_DEADLINE, Image, image_path};
use crate::shell::Shell;
use crate::virtio::{file, json};

pub(crate) fn tests() -> Vec<Trial> {
    let kernels = KernelKind::ALL.map(|kind| {
        let name = kind.name().replace(['-', '.'], "_");
        Trial::test(format!("pci_{name}_has_a_vector_for_each_queue_and_no_complaint"), move || {
            assert_has_vectors(kind);
            Ok(())
        })
    });
    kernels
        .into_iter()
        .chain(trials![
            pci_bar_moved_under_io_takes_its_device_along,
            pci_driver_that_leaves_and_comes_back_100_times_leaks_nothing,
            pci_interrupt_that_moves_between_processors_under_load_is_not_lost,
            pci_kernel_started_by_kexec_finds_its_disk,
            pci_without_messages_fails_cleanly,
            pci_has_31_devices,
        ])
        .collect()
}

/// Fetches what these tests put into guests.
pub(crate) fn prepare() -> Result<(), rig::Error> {
    Assets::here().setpci_and_kexec().map(drop)
}

/// Messages at warning level or above about PCI, its addresses or the ACPI tables. Not those of amd_pstate, which misses the
/// processors' frequency control (_CPC): no guest has one.
const COMPLAINTS: &str = r"dmesg -r | grep -E '^<[0-4]>' | grep -iE 'pci|BAR|MCFG|ACPI|ECAM|resource|bridge' | grep -v ' amd_pstate: '";

/// Boots this kernel with a disk and a random number generator on PCI, with their drivers loaded.
fn guest(kind: KernelKind, modules: &[&str], devices: &str) -> Shell {
    let initrd = initrd_with_modules_of(kind, &[&["virtio_pci"], modules].concat());
    let config = file(format!(r#"{{"transport": "pci", "devices": {devices}}}"#).as_bytes());
    let mut shell = shell_of(
        (kind, Image::Vmlinux),
        initrd.path(),
        &["--config", config.path().to_str().expect("UTF-8")],
    );
    shell.run("sh /modules/load");
    shell
}

fn disk() -> NamedTempFile {
    file(&vec![b'x'; 1 << 20])
}

fn assert_has_vectors(kind: KernelKind) {
    let disk = disk();
    let devices = format!(r#"[{{"type": "block", "path": {}}}, {{"type": "rng"}}]"#, json(disk.path()));
    let mut shell = guest(kind, &["virtio_blk", "virtio-rng"], &devices);
    assert_eq!(shell.run("head -c 3 /dev/vda; head -c 64 /dev/hwrng | wc -c"), "xxx64\n");
    // Vendor and device of each function: the host bridge, a disk, a random number generator.
    let ids =
        shell.run("cd /sys/bus/pci/devices; for d in *; do echo $d $(cat $d/vendor $d/device); done; cd /");
    let expected = "0000:00:00.0 0x8086 0x0d57\n0000:00:01.0 0x1af4 0x1042\n0000:00:02.0 0x1af4 0x1044\n";
    assert_eq!(ids, expected);
    // Each queue has a vector that has interrupted.
    let vectors = shell.run("grep -E 'virtio[01]-(req|input)' /proc/interrupts");
    let counts: Vec<(&str, u32)> = vectors
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[words.len() - 1], words[1].parse().expect("a count"))
        })
        .collect();
    assert!(matches!(counts[..], [("virtio0-req.0", 1..), ("virtio1-input", 1..)]), "{vectors}");
    assert!(vectors.lines().all(|line| line.contains("PCI-MSI")), "{vectors}");
    assert_eq!(shell.run(COMPLAINTS), "");
    // The memory-mapped way to configuration space is taken as well: "MMCONFIG at" until Linux 6.8, then "ECAM".
    let reserved =
        r"dmesg | grep -m 1 -cE '(MMCONFIG at|ECAM) \[mem 0xc0000000-0xc00fffff\] reserved (in|as) '";
    assert_eq!(shell.run(reserved), "1\n", "{}", shell.run("dmesg | grep -i pci"));
    shell.reboot();
}

fn config_of(devices: &str) -> NamedTempFile {
    file(format!(r#"{{"devices": {devices}}}"#).as_bytes())
}

/// Boots a guest with this initramfs and these devices to its prompt, and loads its drivers.
fn started(initrd: &Path, devices: &str, flags: &[&str]) -> Shell {
    started_with("256M", CMDLINE, initrd, devices, flags)
}

/// As [`started`], with this memory and command line.
fn started_with(memory: &str, cmdline: &str, initrd: &Path, devices: &str, flags: &[&str]) -> Shell {
    let config = config_of(devices);
    let flags = [&["--config", config.path().to_str().expect("UTF-8")], flags].concat();
    let mut shell = shell_with((ANY, memory, cmdline), initrd, &flags);
    // Ends of background jobs aren't reported.
    shell.run("sh /modules/load; set +m");
    shell
}

const SETPCI: &str = "setpci() { /opt/ld.so --library-path /opt /opt/setpci -s $*; }";

/// Moves the BAR of a disk while requests are in flight there and on another disk: to a free address, on top of the other, and out
/// of the window. In the end the kernel takes the new address over. Notifications that are written meanwhile would be lost, as on
/// any machine, so the disk has none then: it serves its next request a second after the last one.
fn pci_bar_moved_under_io_takes_its_device_along() {
    let (disk, other) = (disk(), disk());
    let devices = format!(
        r#"[{{"type": "block", "path": {}, "limits": {{"operations_per_second": 1}}}},
            {{"type": "block", "path": {}}}]"#,
        json(disk.path()),
        json(other.path())
    );
    let programs = Assets::here().setpci_and_kexec().expect("they were fetched");
    let initrd = initrd_with_files(&["virtio_pci", "virtio_blk"], &programs);
    let mut shell = started(initrd.path(), &devices, &[]);
    shell.run(SETPCI);
    let bars = shell.run("setpci 00:01.0 BASE_ADDRESS_0; setpci 00:02.0 BASE_ADDRESS_0");
    assert_eq!(bars, "c0100004\nc0180004\n");
    shell.run("(while [ ! -e /stop ]; do dd if=/dev/vdb of=/dev/null iflag=direct bs=4k 2>&1 | grep -i error; done) &");
    shell.run("read_vda() { dd if=/dev/vda iflag=direct bs=512 count=1 skip=$1 2>/dev/null | head -c 1; }");
    for to in ["c8000004", "c0180004", "fee00004", "c8000004"] {
        shell.run("while read_vda 0 >/dev/null && [ ! -e /busy ]; do touch /busy; done; rm /busy; read_vda 1 >/read & pid=$!");
        shell.run("until grep -q ' 1 ' /sys/block/vda/inflight || [ -s /read ]; do :; done");
        let moved = format!(
            "setpci 00:01.0 BASE_ADDRESS_0={to}; setpci 00:01.0 BASE_ADDRESS_0; wait $pid; cat /read; echo; rm /read"
        );
        assert_eq!(
            shell.run_within(&moved, BOOT_DEADLINE),
            format!("{to}\nx\n"),
            "its interrupt comes wherever the BAR is"
        );
        shell.run("setpci 00:01.0 BASE_ADDRESS_0=c0100004");
        assert_eq!(shell.run_within("read_vda 2; echo", BOOT_DEADLINE), "x\n", "after {to}");
    }
    assert_eq!(shell.run_within("touch /stop; wait; echo done", BOOT_DEADLINE), "done\n");
    // The kernel finds the device at an address that it hasn't chosen, and moves it itself.
    shell.run(
        "echo 0000:00:01.0 >/sys/bus/pci/drivers/virtio-pci/unbind; setpci 00:01.0 BASE_ADDRESS_0=c8000004",
    );
    shell.run("echo 1 >/sys/bus/pci/devices/0000:00:01.0/remove; echo 1 >/sys/bus/pci/rescan");
    assert_eq!(
        shell.run_within(
            "head -n 1 /sys/bus/pci/devices/0000:00:01.0/resource; read_vda 3; echo",
            BOOT_DEADLINE
        ),
        "0x00000000c0100000 0x00000000c017ffff 0x0000000000140204\nx\n"
    );
    shell.reboot();
}

fn pci_driver_that_leaves_and_comes_back_100_times_leaks_nothing() {
    let disk = disk();
    let devices = format!(r#"[{{"type": "block", "path": {}}}]"#, json(disk.path()));
    let mut shell =
        started(initrd_with(&["virtio_pci", "virtio_blk"]).path(), &devices, &["--trace-exits=summary"]);
    let fds = |shell: &Shell| {
        std::fs::read_dir(format!("/proc/{}/fd", shell.monitor.pid())).expect("it runs").count()
    };
    assert_eq!(shell.run("head -c 3 /dev/vda; echo"), "xxx\n");
    let before = fds(&shell);
    let rounds = "cd /sys/bus/pci/drivers/virtio-pci; i=0; while [ $i -lt 100 ]; do
        echo 0000:00:01.0 >unbind; echo 0000:00:01.0 >bind; i=$((i + 1)); done; cd /";
    assert_eq!(shell.run_within(rounds, BOOT_DEADLINE), "");
    assert_eq!(shell.run("head -c 3 /dev/vda; echo"), "xxx\n");
    assert_eq!(fds(&shell), before);
    shell.reboot();
    // Notifications have left the guest neither at first nor in the end: a stale ioeventfd keeps a new one from its address. Nor has
    // the cause of an interrupt been read.
    let summary = shell.monitor.stderr();
    let exits_at = |gpa: &str| summary.lines().any(|line| line.split_whitespace().any(|word| word == gpa));
    assert!(exits_at("0xc0100014"), "{summary}");
    assert!(!exits_at("0xc0106000") && !exits_at("0xc0102000"), "{summary}");
}

/// The disk's own interrupts are spread by the kernel and stay where they are; those of the random number generator can be moved.
fn pci_interrupt_that_moves_between_processors_under_load_is_not_lost() {
    let initrd = initrd_with(&["virtio_pci", "virtio-rng"]);
    let mut shell = started(initrd.path(), r#"[{"type": "rng"}]"#, &["--cpus", "2"]);
    shell.run("(while [ ! -e /stop ]; do dd if=/dev/hwrng of=/dev/null bs=64 count=64 2>/dev/null; done) &");
    let moves = "n=$(grep virtio0-input /proc/interrupts | cut -d : -f 1 | tr -d ' '); i=0; while [ $i -lt 300 ]; do echo 1 >/proc/irq/$n/smp_affinity; echo 2 >/proc/irq/$n/smp_affinity; i=$((i + 1)); done";
    assert_eq!(shell.run_within(moves, BOOT_DEADLINE), "");
    // A lost interrupt would leave the reader waiting.
    assert_eq!(shell.run_within("touch /stop; wait; echo done", BOOT_DEADLINE), "done\n");
    let line = shell.run("grep virtio0-input /proc/interrupts");
    let counts: Vec<u64> =
        line.split_whitespace().skip(1).take(2).filter_map(|word| word.parse().ok()).collect();
    assert!(counts.len() == 2 && counts.iter().all(|count| *count > 10), "{line}");
    shell.reboot();
}

fn pci_kernel_started_by_kexec_finds_its_disk() {
    let disk = disk();
    let devices = format!(r#"[{{"type": "block", "path": {}}}]"#, json(disk.path()));
    let drivers = ["virtio_pci", "virtio_blk"];
    let programs = Assets::here().setpci_and_kexec().expect("they were fetched");
    let mut files = rig::programs::files(&programs).expect("they were fetched");
    let read = |path: &Path| std::fs::read(path).expect("a file");
    files.push(("vmlinuz".to_owned(), read(&image_path((ANY.0, Image::BzImage)))));
    files.push(("initrd".to_owned(), read(initrd_with(&drivers).path())));
    let initrd = initrd_with_all(&drivers, files);
    let mut shell = started_with("512M", CMDLINE, initrd.path(), &devices, &[]);
    assert_eq!(shell.run("head -c 3 /dev/vda; echo"), "xxx\n");
    let kexec = "/opt/ld.so --library-path /opt /opt/kexec";
    let load = format!("{kexec} -s -l /opt/vmlinuz --initrd=/opt/initrd --reuse-cmdline; echo $?");
    assert_eq!(shell.run_within(&load, DEADLINE), "0\n");
    shell.monitor.send(format!("{kexec} -e\n").as_bytes());
    let mut shell = Shell::at(shell.monitor).mute();
    shell.run("sh /modules/load");
    assert_eq!(shell.run("head -c 3 /dev/vda; grep -c virtio0-req.0 /proc/interrupts"), "xxx1\n");
    shell.reboot();
}

/// There is no other interrupt: the driver says so, and nothing hangs.
fn pci_without_messages_fails_cleanly() {
    let disk = disk();
    let devices = format!(r#"[{{"type": "block", "path": {}}}]"#, json(disk.path()));
    let initrd = initrd_with(&["virtio_pci", "virtio_blk"]);
    let cmdline = format!("{CMDLINE} pci=nomsi");
    let mut shell = started_with("256M", &cmdline, initrd.path(), &devices, &[]);
    assert_eq!(
        shell.run("ls /sys/bus/virtio/devices; ls /dev/vda"),
        "virtio0\nls: /dev/vda: No such file or directory\n"
    );
    let said = shell.run("dmesg | grep virtio_blk");
    assert!(said.contains("failed with error"), "{said}");
    shell.reboot();
}

fn pci_has_31_devices() {
    let disks: Vec<_> = (0..30).map(|_| disk()).collect();
    let disks: Vec<String> =
        disks.iter().map(|disk| format!(r#"{{"type": "block", "path": {}}}"#, json(disk.path()))).collect();
    let devices = format!(r#"[{}, {{"type": "rng"}}]"#, disks.join(", "));
    let initrd = initrd_with(&["virtio_pci", "virtio_blk", "virtio-rng"]);
    let mut shell = started(initrd.path(), &devices, &[]);
    assert_eq!(shell.run("ls /sys/bus/virtio/devices | wc -l; ls /sys/block | grep -c vd"), "31\n30\n");
    let read = "for disk in /dev/vd*; do head -c 1 $disk; done; head -c 16 /dev/hwrng | wc -c";
    assert_eq!(shell.run(read), format!("{}16\n", "x".repeat(30)));
    assert_eq!(shell.run(COMPLAINTS), "");
    shell.reboot();
}
