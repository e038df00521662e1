//! Failures of the host's I/O: the guest gets an error, and the log a line.

use std::os::fd::AsRawFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use serde_json::json;

use crate::disk::*;

fn failures_are_told_once(io: &str) {
    let file = memfd_create("disk", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, 1 << 20).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut driver = start(json!({"path": path, "io": io}));
    assert_eq!(send(&mut driver, OUT, 3, &[1; 512]), OK);
    assert_eq!(driver.control().take_notices().texts, [""; 0]);
    fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
    assert_eq!(send(&mut driver, OUT, 3, &[1; 512]), IOERR);
    assert_eq!(
        told(&driver),
        ["a write at byte 1536 of the disk failed: Operation not permitted (os error 1)"]
    );
    assert_eq!([send(&mut driver, OUT, 3, &[1; 512]), send(&mut driver, OUT, 4, &[1; 512])], [IOERR; 2]);
    assert_eq!(read(&mut driver, 3, 512), (vec![1; 512], OK));
    assert_eq!(driver.control().take_notices().texts, [""; 0]);
}

#[test]
fn failed_write_of_a_raw_disk_by_threads_is_told() {
    failures_are_told_once("threads");
}

#[test]
fn failed_write_of_a_raw_disk_is_told() {
    failures_are_told_once("auto");
}

/// A request that the disk doesn't have is the guest's mistake.
#[test]
fn request_beyond_the_end_is_not_told() {
    let file = image();
    let mut driver = start(fields(&file, json!({})));
    assert_eq!(read(&mut driver, SECTORS, 512).1, IOERR);
    assert_eq!(read(&mut driver, 0, 512).1, OK);
    assert_eq!(driver.control().take_notices().texts, [""; 0]);
}
