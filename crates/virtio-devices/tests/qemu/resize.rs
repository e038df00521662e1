//! Block devices that grow or shrink while a disk uses them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;
use vmm_virtio::testing::Driver;

use crate::devices::{LoopDevice, trial};
use crate::disk::*;
use crate::tools::qemu_img;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("device_full_of_an_image_takes_more_when_it_has_grown", full_image_grows),
        trial("device_that_shrinks_under_an_image_fails_what_is_gone", image_shrinks),
        trial("device_that_grows_or_shrinks_under_a_raw_disk_is_the_disk", raw_follows),
        trial("device_that_shrinks_under_an_overlay_fails_what_is_gone", base_shrinks),
        trial("device_that_shrinks_as_a_backing_file_fails_what_is_gone", backing_shrinks),
        trial("device_that_grows_under_an_overlay_leaves_the_disk_as_it_was", base_grows),
    ]
}

const MIB: u64 = 1 << 20;
/// Sectors of a cluster.
const CLUSTER: u64 = 128;

/// Runs qemu-img, with DEVICE for the device's path.
fn on_device(device: &LoopDevice, arguments: &str) {
    let (is_done, said) = qemu_img(&arguments.replace("DEVICE", device.path.to_str().unwrap()));
    assert!(is_done, "{said}");
}

fn image(device: &LoopDevice) -> Value {
    on_device(device, "create -f qcow2 DEVICE 64M");
    json!({"path": device.path, "format": "qcow2"})
}

/// Overwrites the device's bytes from `start`, through its file.
fn fill(path: &Path, start: u64, len: u64, byte: u8) {
    File::options().write(true).open(path).unwrap().write_all_at(&vec![byte; len as usize], start).unwrap();
}

/// Parts of clusters are written, whose rest is zeroed.
fn full_image_grows(device: &LoopDevice) {
    device.set_len(MIB);
    let fields = image(device);
    let mut driver = start(fields.clone());
    let write = |driver: &mut Driver, index| send(driver, OUT, index * CLUSTER + 8, &[0xa5; 4096]);
    // A device of 16 clusters, of which the tables have five.
    let full = (0..16).find(|index| write(&mut driver, *index) != OK).expect("it is full");
    assert_eq!(full, 11);
    let at = full * CLUSTER * 512 + 4096;
    assert_eq!(
        told(&driver),
        [format!("a write at byte {at} of the disk failed: No space left on device (os error 28)")]
    );
    device.set_len(4 * MIB);
    fill(&device.file(), MIB, 3 * MIB, 0xee);
    let failed: Vec<u64> = (full..full + 10).filter(|index| write(&mut driver, *index) != OK).collect();
    assert_eq!(failed, [0; 0]);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    let expected = [vec![0; 4096], vec![0xa5; 4096], vec![0; 56 << 10]].concat();
    let assert_holds = |driver: &mut Driver| {
        let wrong: Vec<u64> = (0..full + 10)
            .filter(|index| read(driver, index * CLUSTER, 64 << 10) != (expected.clone(), OK))
            .collect();
        assert_eq!(wrong, [0; 0]);
    };
    assert_holds(&mut driver);
    drop(driver);
    on_device(device, "check DEVICE");
    assert_holds(&mut start(fields));
}

fn image_shrinks(device: &LoopDevice) {
    let fields = image(device);
    let mut driver = start(fields);
    // Allocated in this order: the second is in the second MiB.
    assert_eq!(send(&mut driver, OUT, 0, &[1; 64 << 10]), OK);
    assert_eq!(send(&mut driver, OUT, CLUSTER, &vec![2; 1 << 20]), OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    device.set_len(MIB);
    assert_eq!(read(&mut driver, 0, 512), (vec![1; 512], OK));
    let last = 16 * CLUSTER;
    assert_eq!(read(&mut driver, last, 512).1, IOERR);
    assert_eq!(
        told(&driver),
        [format!("a read at byte {} of the disk failed: the file has become shorter", last * 512)]
    );
    assert_eq!(send(&mut driver, OUT, last, &[3; 512]), IOERR);
}

fn raw_follows(device: &LoopDevice) {
    device.set_len(MIB);
    let mut driver = start(json!({"path": device.path, "format": "raw"}));
    assert_eq!(driver.config(0, 8), 2048_u64.to_le_bytes());
    assert_eq!(send(&mut driver, OUT, 2048, &[1; 512]), IOERR);
    device.set_len(2 * MIB);
    driver.wait_config_change();
    assert_eq!(driver.config(0, 8), 4096_u64.to_le_bytes());
    assert_eq!(send(&mut driver, OUT, 4095, &[1; 512]), OK);
    assert_eq!(read(&mut driver, 4094, 1024), ([[0; 512], [1; 512]].concat(), OK));
    device.set_len(MIB);
    // Both before and after the disk has noticed.
    assert_eq!([read(&mut driver, 4095, 512).1, send(&mut driver, OUT, 4095, &[2; 512])], [IOERR; 2]);
    driver.wait_config_change();
    assert_eq!(driver.config(0, 8), 2048_u64.to_le_bytes());
    assert_eq!([read(&mut driver, 4095, 512).1, send(&mut driver, OUT, 4095, &[2; 512])], [IOERR; 2]);
    assert_eq!(read(&mut driver, 2047, 512), (vec![0; 512], OK));
}

fn base_shrinks(device: &LoopDevice) {
    device.set_len(2 * MIB);
    let mut driver = start(json!({"path": device.path, "format": "raw", "overlay": "temp"}));
    assert_eq!(send(&mut driver, OUT, 4088, &[1; 4096]), OK);
    device.set_len(MIB);
    assert_eq!(read(&mut driver, 2048, 512).1, IOERR);
    let expected = "a read at byte 1048576 of the disk failed: ";
    assert!(told(&driver)[0].starts_with(expected));
    // The rest of its block would come from the base.
    assert_eq!(send(&mut driver, OUT, 2049, &[2; 512]), IOERR);
    assert_eq!(read(&mut driver, 2047, 512), (vec![0; 512], OK));
    assert_eq!(read(&mut driver, 4088, 4096), (vec![1; 4096], OK));
}

fn backing_shrinks(device: &LoopDevice) {
    device.set_len(2 * MIB);
    fill(&device.file(), 0, 2 * MIB, 7);
    let directory = TempDir::new().unwrap();
    let image = directory.path().join("a.qcow2");
    on_device(device, &format!("create -f qcow2 -F raw -b DEVICE {}", image.display()));
    let mut driver = start(json!({"path": image, "format": "qcow2", "backing": [device.path]}));
    assert_eq!(read(&mut driver, 4095, 512), (vec![7; 512], OK));
    device.set_len(MIB);
    assert_eq!(read(&mut driver, 4095, 512).1, IOERR);
    assert_eq!(
        told(&driver),
        ["a read at byte 2096640 of the disk failed: the file has become shorter".to_owned()]
    );
    // The rest of its cluster would come from the backing file.
    assert_eq!(send(&mut driver, OUT, 4095, &[2; 512]), IOERR);
    assert_eq!(read(&mut driver, 2047, 512), (vec![7; 512], OK));
}

fn base_grows(device: &LoopDevice) {
    device.set_len(MIB);
    let mut driver = start(json!({"path": device.path, "format": "raw", "overlay": "temp"}));
    device.set_len(2 * MIB);
    assert_eq!(read(&mut driver, 2048, 512).1, IOERR);
    assert_eq!(driver.config(0, 8), 2048_u64.to_le_bytes());
    assert_eq!(send(&mut driver, OUT, 2047, &[1; 512]), OK);
    assert_eq!(read(&mut driver, 2047, 512), (vec![1; 512], OK));
}
