//! Requests as long as they can be, and longer.

use serde_json::{Value, json};
use vmm_virtio::testing::{Buf, Driver};

use crate::disk::*;
use crate::qcow2::Images;

/// The status of a read that fills 253 times the same MiB, and `last`: with header and status that is all of a queue.
fn answer_to_254_buffers(driver: &mut Driver, last: Buf<'_>) -> u8 {
    let header = header(IN, 0);
    let mut bufs = vec![Buf::Read(&header)];
    bufs.extend([MIB; 253]);
    bufs.extend([last, Buf::Write(1)]);
    let found = status(&driver.queue(0).request(&bufs));
    assert!(!driver.needs_reset());
    assert_eq!(read(driver, 1, 512), (vec![0; 512], OK));
    found
}

/// One sector more than 254 buffers of 1 MiB, which is what the configuration allows.
fn answer_to_a_sector_too_much(fields_of_disk: Value) -> u8 {
    let file = sparse_image(255);
    let mut driver = start(fields(&file, fields_of_disk));
    assert_eq!(driver.config(8, 8), [0x10_0000_u32.to_le_bytes(), 254_u32.to_le_bytes()].concat());
    answer_to_254_buffers(&mut driver, Buf::WriteAt(SPARE, (1 << 20) + 512))
}

#[test]
fn data_longer_than_all_buffers_may_be_fails() {
    assert_eq!(answer_to_a_sector_too_much(json!({})), IOERR);
    assert_eq!(answer_to_a_sector_too_much(json!({"overlay": "temp"})), IOERR);
}

/// In an image of qcow2, where nothing is read from a disk for them.
#[test]
fn data_as_long_as_all_buffers_may_be_is_read() {
    let images = Images::new();
    let path = images.create("a.qcow2", 254 << 20, None);
    let mut driver = start(json!({"path": path, "format": "qcow2"}));
    assert_eq!(answer_to_254_buffers(&mut driver, MIB), OK);
}
