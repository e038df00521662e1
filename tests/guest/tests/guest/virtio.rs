//! Virtio devices with the drivers of a stock kernel.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use driver::{DEADLINE, Monitor, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use crate::initrd::{initrd_with, shell};
use crate::linux::BY_SIGTERM;
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        virtio_rng_feeds_the_guest,
        virtio_block_reads_and_writes_a_raw_file,
        virtio_pmem_is_memory_that_a_file_keeps,
        virtio_pmem_that_is_read_only_takes_no_store,
        virtio_balloon_gives_memory_back_to_the_host,
        virtio_balloon_gives_shared_memory_back_to_the_host,
        virtio_counters_are_written_on_sigusr1_and_at_the_end,
        virtio_overlay_keeps_what_was_flushed_over_a_reset,
        virtio_driver_that_leaves_and_comes_back_finds_its_device,
        virtio_notifications_leave_no_vcpu,
    ]
}

/// A temporary file with these contents.
pub(crate) fn file(contents: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(contents).expect("room for a file");
    file
}

/// Boots a guest with these devices to its prompt and loads the drivers.
fn guest(devices: &str, modules: &[&str]) -> Shell {
    guest_with(devices, modules, &[])
}

/// As [`guest`], with these additional flags of the monitor.
pub(crate) fn guest_with(devices: &str, modules: &[&str], flags: &[&str]) -> Shell {
    guest_from(&initrd_with(&[&["virtio_pci"], modules].concat()), devices, flags)
}

/// As [`guest_with`], with an initramfs that contains the drivers.
pub(crate) fn guest_from(initrd: &NamedTempFile, devices: &str, flags: &[&str]) -> Shell {
    guest_of(initrd, &format!(r#"{{"devices": {devices}}}"#), flags)
}

/// Boots a guest with this config and this initramfs to its prompt and loads the drivers.
pub(crate) fn guest_of(initrd: &NamedTempFile, config: &str, flags: &[&str]) -> Shell {
    let config = file(config.as_bytes());
    let mut shell =
        shell(initrd.path(), &[&["--config", config.path().to_str().expect("UTF-8")], flags].concat());
    let devices = shell.run("sh /modules/load; ls /sys/bus/virtio/devices");
    assert!(devices.contains("virtio0"), "{devices}");
    shell
}

pub(crate) fn json(path: &Path) -> String {
    format!("{:?}", path.to_str().expect("UTF-8"))
}

fn virtio_rng_feeds_the_guest() {
    let mut shell = guest(r#"[{"type": "rng"}]"#, &["virtio-rng"]);
    assert_eq!(shell.run("cat /sys/class/misc/hw_random/rng_current"), "virtio_rng.0\n");
    let bytes = shell.run("head -c 64 /dev/hwrng | od -An -tx1 | tr -d ' \\n' | wc -c");
    assert_eq!(bytes, "128\n");
    shell.reboot();
}

fn virtio_block_reads_and_writes_a_raw_file() {
    let disk = file(&[b"first sector ".as_slice(), &vec![b'x'; (1 << 20) - 13]].concat());
    let devices = format!(r#"[{{"type": "block", "path": {}, "serial": "S1"}}]"#, json(disk.path()));
    let mut shell = guest(&devices, &["virtio_blk"]);
    assert_eq!(shell.run("cat /sys/block/vda/size /sys/block/vda/serial; echo"), "2048\nS1\n");
    assert_eq!(shell.run("head -c 12 /dev/vda; echo"), "first sector\n");
    let write = "echo written | dd of=/dev/vda bs=512 seek=7 conv=sync,fsync 2>/dev/null; echo $?";
    assert_eq!(shell.run_within(write, DEADLINE), "0\n");
    shell.reboot();
    let contents = std::fs::read(disk.path()).expect("the disk is there");
    assert_eq!(contents.len(), 1 << 20);
    assert_eq!(&contents[7 * 512..7 * 512 + 9], b"written\n\0");
}

const PMEM: &[&str] = &["virtio_pmem", "nd_pmem"];

fn virtio_pmem_is_memory_that_a_file_keeps() {
    let image = file(&[b"first page ".as_slice(), &vec![b'x'; (8 << 20) - 11]].concat());
    let devices = format!(r#"[{{"type": "pmem", "path": {}}}]"#, json(image.path()));
    let mut shell = guest(&devices, PMEM);
    assert_eq!(shell.run("cat /sys/block/pmem0/size"), "16384\n");
    assert_eq!(shell.run("head -c 10 /dev/pmem0; echo"), "first page\n");
    let write = "echo written | dd of=/dev/pmem0 bs=4096 seek=7 conv=sync,fsync 2>/dev/null; echo $?";
    assert_eq!(shell.run(write), "0\n");
    shell.reboot();
    let contents = std::fs::read(image.path()).expect("the image is there");
    assert_eq!(&contents[7 * 4096..7 * 4096 + 9], b"written\n\0");
}

/// The guest's driver reports success, but KVM's read-only slot prevents the store.
fn virtio_pmem_that_is_read_only_takes_no_store() {
    let image = file(&vec![b'x'; 8 << 20]);
    let devices = format!(r#"[{{"type": "pmem", "path": {}, "read_only": true}}]"#, json(image.path()));
    let mut shell = guest(&devices, PMEM);
    shell.run("echo written | dd of=/dev/pmem0 bs=4096 seek=7 conv=sync,fsync 2>/dev/null");
    shell.run("echo 3 > /proc/sys/vm/drop_caches");
    assert_eq!(
        shell.run("dd if=/dev/pmem0 bs=4096 skip=7 count=1 2>/dev/null | head -c 7; echo"),
        "xxxxxxx\n"
    );
    shell.reboot();
    assert!(std::fs::read(image.path()).expect("the image is there").iter().all(|byte| *byte == b'x'));
}

/// A file in the guest's memory is deleted: its pages become free in the guest, and soon on the host.
fn virtio_balloon_gives_memory_back_to_the_host() {
    assert_balloon_gives_back("", |monitor| monitor.rss_kib());
}

/// The pages of a memfd belong to the file, whether or not they are mapped.
fn virtio_balloon_gives_shared_memory_back_to_the_host() {
    assert_balloon_gives_back(r#""memory": {"shared": true},"#, memfd_kib);
}

/// Memory used by the memfd of guest RAM, in KiB.
fn memfd_kib(monitor: &Monitor) -> u64 {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", monitor.pid())).expect("it runs");
    let paths = descriptors.map(|entry| entry.expect("a descriptor").path());
    let is_ram = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:guest-ram"))
    };
    let path = paths.into_iter().find(is_ram).expect("the guest's memory is a memfd");
    std::fs::metadata(path).expect("it is open").blocks() / 2
}

/// `host_kib` returns an upper bound of the host memory used for guest RAM.
fn assert_balloon_gives_back(memory: &str, host_kib: impl Fn(&Monitor) -> u64) {
    let config = format!(r#"{{{memory} "devices": [{{"type": "balloon"}}]}}"#);
    let mut shell = guest_of(&initrd_with(&["virtio_pci", "virtio_balloon"]), &config, &[]);
    shell.run("mount -t tmpfs tmpfs /mnt");
    let before = host_kib(&shell.monitor);
    assert_eq!(
        shell.run_within("dd if=/dev/zero of=/mnt/big bs=1M count=100 2>/dev/null; echo $?", DEADLINE),
        "0\n"
    );
    let full = host_kib(&shell.monitor);
    assert!(full > before + 80 * 1024, "{before} KiB, then {full} KiB");
    shell.run("rm /mnt/big");
    // Linux reports pages two seconds after they became free (PAGE_REPORTING_DELAY).
    wait_until("memory comes back", DEADLINE, || host_kib(&shell.monitor) + 70 * 1024 < full);
    assert_eq!(shell.run("echo $((6*7))"), "42\n", "it goes on");
    shell.reboot();
}

fn virtio_counters_are_written_on_sigusr1_and_at_the_end() {
    let disk = file(&vec![0; 1 << 20]);
    let metrics = NamedTempFile::new().expect("a temporary file");
    let devices =
        format!(r#"[{{"type": "block", "id": "data", "path": {}}}, {{"type": "rng"}}]"#, json(disk.path()));
    let flags = ["--metrics", metrics.path().to_str().expect("UTF-8")];
    let mut shell = guest_with(&devices, &["virtio_blk", "virtio-rng"], &flags);
    shell.run("dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null");
    shell.monitor.signal(Signal::SIGUSR1);
    wait_until("there are counters", DEADLINE, || counter(metrics.path(), "data", "bytes_in") >= 1 << 20);
    let requests = counter(metrics.path(), "data", "requests");
    assert!(requests > 0 && counter(metrics.path(), "data", "kicks") > 0);
    shell.run("echo x | dd of=/dev/vda conv=sync,fsync 2>/dev/null");
    shell.reboot();
    assert!(counter(metrics.path(), "data", "requests") > requests, "more at the end");
    assert!(counter(metrics.path(), "data", "bytes_out") >= 512);
    assert_eq!(counter(metrics.path(), "data", "errors"), 0);
    assert_eq!(counter(metrics.path(), "rng0", "faults"), 0);
}

/// With `on_reboot: restart` the next machine has the same disk; the base is unchanged.
fn virtio_overlay_keeps_what_was_flushed_over_a_reset() {
    let disk = file(&vec![0; 1 << 20]);
    let devices = format!(r#"[{{"type": "block", "path": {}, "overlay": "temp"}}]"#, json(disk.path()));
    let config = file(format!(r#"{{"on_reboot": "restart", "devices": {devices}}}"#).as_bytes());
    let initrd = initrd_with(&["virtio_pci", "virtio_blk"]);
    let mut shell = shell(initrd.path(), &["--config", config.path().to_str().expect("UTF-8")]);
    shell.run("sh /modules/load; echo flushed | dd of=/dev/vda conv=sync,fsync 2>/dev/null");
    shell.monitor.send(b"reboot -f\n");
    let mut shell = Shell::at(shell.monitor).mute();
    let read = shell.run("sh /modules/load; head -n 1 /dev/vda");
    assert!(read.ends_with("flushed\n"), "{read}");
    assert_eq!(std::fs::read(disk.path()).expect("it is there"), vec![0; 1 << 20]);
    shell.monitor.signal(Signal::SIGTERM);
    shell.monitor.expect_code(BY_SIGTERM, DEADLINE);
}

/// A counter of a device in the metrics file; 0 if it isn't there yet.
pub(crate) fn counter(metrics: &Path, device: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(metrics).expect("the file of --metrics");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    json["devices"][device][name].as_u64().unwrap_or(0)
}

/// Each time, the driver resets the device, which holds the vCPU until the device has stopped.
fn virtio_driver_that_leaves_and_comes_back_finds_its_device() {
    let disk = file(&[b'd'; 1 << 20]);
    let devices = format!(r#"[{{"type": "block", "path": {}}}]"#, json(disk.path()));
    let mut shell = guest(&devices, &["virtio_blk"]);
    let again = "cd /sys/bus/virtio/drivers/virtio_blk; i=0; while [ $i -lt 20 ]; do echo virtio0 >unbind; echo virtio0 >bind; \
                 dd if=/dev/vda bs=64k 2>/dev/null | tr -d d | wc -c; i=$((i+1)); done | sort | uniq -c; cd /";
    assert_eq!(shell.run_within(again, DEADLINE).trim(), "20 0");
    shell.reboot();
}

/// KVM passes a notification to the device's thread without an exit. Other registers cause exits, as that of the interrupt's cause
/// shows.
fn virtio_notifications_leave_no_vcpu() {
    let disk = file(&vec![0; 4 << 20]);
    let config = format!(
        r#"{{"transport": "mmio", "devices": [{{"type": "block", "path": {}}}]}}"#,
        json(disk.path())
    );
    let initrd = initrd_with(&["virtio_mmio", "virtio_blk"]);
    let mut shell = guest_of(&initrd, &config, &["--trace-exits=summary"]);
    assert_eq!(shell.run("dd if=/dev/vda of=/dev/null bs=4k iflag=direct 2>/dev/null; echo $?"), "0\n");
    shell.reboot();
    let summary = shell.monitor.stderr();
    let has_exits_at =
        |gpa: &str| summary.lines().any(|line| line.split_whitespace().any(|word| word == gpa));
    assert!(has_exits_at("0xd0000060"), "{summary}");
    assert!(!has_exits_at("0xd0000050"), "{summary}");
}
