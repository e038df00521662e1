//! A disk whose file takes no more writes: the monitor reports what the guest may have lost.

use std::path::Path;

use driver::{DEADLINE, Launch, Monitor, guests};
use harness::trials;
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::common::{ENDED, HOST_CANT, limit};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        failing_image_at_the_end_is_reported_and_determines_the_exit_code,
        failing_image_at_a_restart_is_reported_then_and_at_the_end,
        image_that_is_written_at_the_end_is_clean_and_not_reported,
    ]
}

const CLUSTER_BITS: u32 = 16;

/// An empty qcow2 image of 64 MiB: a cluster each for the header, the refcount table, its block and the L1 table.
fn qcow2() -> Vec<u8> {
    let cluster = |number: u64| number << CLUSTER_BITS;
    let mut image = vec![0; cluster(4) as usize];
    let mut put = |at: u64, bytes: &[u8]| image[at as usize..][..bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &(64_u64 << 20).to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &cluster(3).to_be_bytes());
    put(48, &cluster(1).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    // Reference counts of 2^4 bits, and the header's length.
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    put(cluster(1), &cluster(2).to_be_bytes());
    put(cluster(2), &[0, 1, 0, 1, 0, 1, 0, 1]);
    image
}

/// A machine that restarts, with a guest that writes a sector for each byte of input and doesn't flush.
fn writing_guest(dir: &Path) -> Launch {
    let (guest, image) = (guests::path("disk-write"), dir.join("disk.qcow2"));
    std::fs::write(&image, qcow2()).unwrap();
    let config = format!(
        r#"{{"boot": {{"flat": {{"image": {guest:?}, "mode": "protected"}}}}, "irqchip": true,
            "on_reboot": "restart", "devices": [{{"type": "block", "id": "data", "path": {image:?}, "format": "qcow2"}}]}}"#
    );
    std::fs::write(dir.join("vm.json"), config).unwrap();
    Monitor::command(["--config", "vm.json"]).dir(dir).on_terminal()
}

fn write(monitor: &mut Monitor) {
    monitor.expect("ready\n", DEADLINE);
    monitor.send(b"1");
    monitor.expect("1", DEADLINE);
}

/// Has every write to a file beyond this length fail (the soft RLIMIT_FSIZE).
fn limit_files(monitor: &Monitor, len: &str) {
    limit(monitor, &format!("--fsize={len}:"));
}

/// The message about the disk at the end.
fn error(dir: &Path) -> String {
    let image = dir.join("disk.qcow2");
    format!(
        "error: device \"data\": what the guest wrote since its last flush may be lost: repair the image, qemu-img check -r all {}",
        image.display()
    )
}

fn is_dirty(dir: &Path) -> bool {
    std::fs::read(dir.join("disk.qcow2")).unwrap()[79] & 1 != 0
}

fn failing_image_at_the_end_is_reported_and_determines_the_exit_code() {
    let dir = TempDir::new().unwrap();
    let mut monitor = writing_guest(dir.path()).start();
    write(&mut monitor);
    limit_files(&monitor, "0");
    monitor.send(b"\x01x");
    monitor.expect_code(HOST_CANT, DEADLINE);
    let said = monitor.stderr();
    assert!(said.contains("device \"data\": the end of writing failed: File too large"), "{said}");
    assert_eq!(said.matches(&error(dir.path())).count(), 1, "{said}");
    assert!(is_dirty(dir.path()));
}

/// The next guest can read the disk, and nothing it does, nor room for its writes, makes up for the loss.
fn failing_image_at_a_restart_is_reported_then_and_at_the_end() {
    let dir = TempDir::new().unwrap();
    let mut monitor = writing_guest(dir.path()).start();
    write(&mut monitor);
    limit_files(&monitor, "0");
    monitor.send(b"\x04");
    monitor.expect("ready\n", DEADLINE);
    monitor.expect_stderr("device \"data\": the end of writing failed: File too large", DEADLINE);
    let said = monitor.stderr();
    assert!(!said.contains("error: device"), "{said}");
    limit_files(&monitor, "unlimited");
    monitor.send(b"2");
    monitor.expect("2", DEADLINE);
    monitor.send(b"\x01x");
    monitor.expect_code(HOST_CANT, DEADLINE);
    let said = monitor.stderr();
    assert_eq!(said.matches(&error(dir.path())).count(), 1, "{said}");
    assert!(is_dirty(dir.path()));
}

fn image_that_is_written_at_the_end_is_clean_and_not_reported() {
    let dir = TempDir::new().unwrap();
    let mut monitor = writing_guest(dir.path()).start();
    write(&mut monitor);
    assert!(is_dirty(dir.path()));
    monitor.send(b"\x01x");
    monitor.expect_code(ENDED, DEADLINE);
    assert!(!monitor.stderr().contains("device \"data\""), "{}", monitor.stderr());
    assert!(!is_dirty(dir.path()));
}
