//! Virtio devices, used by the drivers of a stock kernel.

use std::io::Write;
use std::path::Path;

use driver::DEADLINE;
use harness::trials;
use libtest_mimic::Trial;
use tempfile::NamedTempFile;

use crate::initrd::{initrd_with, shell};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![virtio_rng_feeds_the_guest, virtio_block_reads_and_writes_a_raw_file]
}

/// A file with these contents, gone with the value.
fn file(contents: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(contents).expect("room for a file");
    file
}

/// A guest at its prompt with these devices, whose drivers it has loaded.
fn guest(devices: &str, modules: &[&str]) -> Shell {
    let config = file(format!(r#"{{"devices": {devices}}}"#).as_bytes());
    let modules = [&["virtio_mmio"], modules].concat();
    let initrd = initrd_with(&modules);
    let mut shell = shell(initrd.path(), &["--config", config.path().to_str().expect("UTF-8")]);
    let load = "for module in /modules/*.ko; do insmod $module 2>/dev/null; done; for module in /modules/*.ko; do insmod \
                $module 2>/dev/null; done; ls /sys/bus/virtio/devices";
    let devices = shell.run(load);
    assert!(devices.contains("virtio0"), "{devices}");
    shell
}

fn json(path: &Path) -> String {
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
