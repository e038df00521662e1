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
