//! fio verifies that it reads back what it has written, on block devices with one, two and four queues.

use std::fs;
use std::path::Path;

use driver::Monitor;
use harness::trials;
use libtest_mimic::Trial;
use rig::{Assets, Rootfs};
use tempfile::NamedTempFile;

use crate::linux::{BOOT_DEADLINE, ENDED};
use crate::rootfs::{run, start_on_disk};

/// Length of the disk in bytes: short enough for four passes in the rig, and long enough for more requests than fit into the queues.
const DISK_LEN: u64 = 8 << 20;

pub(crate) fn tests() -> Vec<Trial> {
    trials![fio_one_queue_verifies, fio_two_queues_verify, fio_four_queues_verify]
}

/// Starts a guest with a read-only root and `disk`, with as many queues as processors, at a shell that is its init process.
fn start(disk: &Path, queues: u64) -> (Monitor, NamedTempFile) {
    let root = Assets::here().rootfs(Rootfs::Fio).expect("it was built beforehand");
    let config = format!(
        r#"{{"cpus": {{"count": {queues}}}, "devices": [{{"type": "block", "id": "root", "path": {root:?}, "read_only": true}},
            {{"type": "block", "id": "data", "path": {disk:?}, "queues": {queues}}}]}}"#
    );
    let cmdline = "console=ttyS0 root=/dev/vda ro init=/bin/sh panic=-1 quiet";
    let (mut monitor, config) = start_on_disk(&config, "256M", cmdline);
    monitor.expect("# ", BOOT_DEADLINE);
    (monitor, config)
}

/// Writes and reads at random, each processor in its own part of the disk, with eight requests in flight; then reads and verifies
/// everything. fio stops at the first error.
fn verifies_on(queues: u64) {
    let disk = NamedTempFile::new().expect("a temporary file");
    disk.as_file().set_len(DISK_LEN).expect("room for a disk");
    let (mut monitor, _config) = start(disk.path(), queues);
    let counts = run(&mut monitor, "nproc; ls /sys/block/vdb/mq | wc -l");
    assert!(counts.ends_with(&format!("\n{queues}\n{queues}\n")), "{counts}");

    let part = DISK_LEN / queues;
    let fio = format!(
        "/usr/bin/fio --name=verify --filename=/dev/vdb --rw=randrw --bsrange=4k-32k --ioengine=libaio --iodepth=8 --direct=1 \
         --verify=crc32c --verify_fatal=1 --verify_state_save=0 --thread --numjobs={queues} --size={part} \
         --offset_increment={part} --cpus_allowed=0-{} --cpus_allowed_policy=split --group_reporting --eta=never \
         --output-format=terse --terse-version=3 >/dev/fio; echo fio $?; cut -d\\; -f3,5,6,47 /dev/fio",
        queues - 1
    );
    let said = run(&mut monitor, &fio);
    assert!(said.contains("fio 0\n"), "{said}");
    // The job's name and error, KiB read and KiB written. Verification counts as reading, so reads cover the whole disk.
    let fields: Vec<&str> = said.lines().last().unwrap_or_default().split(';').collect();
    assert_eq!(fields[..3], ["verify", "0", &format!("{}", DISK_LEN >> 10)], "{said}");
    let written_kib: u64 = fields[3].parse().expect("KiB");

    monitor.send(b"reboot -f\n");
    monitor.expect_code(ENDED, BOOT_DEADLINE);
    assert_eq!(monitor.stderr(), "");
    let contents = fs::read(disk.path()).expect("the disk is there");
    let blocks = contents.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0));
    assert_eq!(blocks.count() as u64 * 4, written_kib, "in the host's file");
}

fn fio_one_queue_verifies() {
    verifies_on(1);
}

fn fio_two_queues_verify() {
    verifies_on(2);
}

fn fio_four_queues_verify() {
    verifies_on(4);
}
