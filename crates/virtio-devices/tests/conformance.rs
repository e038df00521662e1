//! The suite that every device has to pass, an item for each. They are opened as a config would open them.

use std::path::Path;

use serde_json::{Value, json};
use vmm_virtio::testing::{Expectations, UNWRITTEN};
use vmm_virtio::{Setting, VirtioDevice, conformance};
use vmm_virtio_devices::KINDS;

/// The device that a config with `"type": kind` and these fields describes.
fn open(kind: &str, fields: Value) -> Box<dyn VirtioDevice> {
    let entry = KINDS.iter().find(|entry| entry.name == kind).expect("it is in the table");
    let setting = Setting { directory: Path::new("."), vcpus: 1, id: kind };
    entry.open(fields, &setting).expect("it can be opened")
}

conformance!(
    rng,
    || open("rng", json!({})),
    Expectations {
        id: 4,
        queues: &[64],
        writable: 64,
        written: 64,
        // 64 random bytes are all the same once in 2^504 times.
        check: |bytes| assert_ne!(bytes, [UNWRITTEN; 64]),
        ..Expectations::NONE
    }
);

/// A disk whose file is gone when it is.
fn disk(io: &str) -> Box<dyn VirtioDevice> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(1 << 20).expect("a sparse megabyte");
    open("block", json!({"path": file.path(), "io": io, "queues": 1}))
}

/// VIRTIO_BLK_F_SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD and WRITE_ZEROES.
const DISK_FEATURES: u64 = 1 << 2 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13 | 1 << 14;

/// A read of the first sector, which is zeros, and the status behind it.
const DISK: Expectations = Expectations {
    id: 2,
    features: DISK_FEATURES,
    queues: &[256],
    readable: &[0; 16],
    writable: 513,
    written: 513,
    check: |bytes| assert_eq!(bytes, [0; 513]),
    ..Expectations::NONE
};

conformance!(block_by_io_uring, || disk("io_uring"), DISK);
conformance!(block_by_threads, || disk("threads"), DISK);
