//! Locks in QEMU's protocol.

use libtest_mimic::Trial;
use serde_json::json;

use crate::disk::*;
use crate::tools::{Holder, qemu_io, trial};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("reader_beside_a_qemu_that_writes_is_refused", reader_beside_writer),
        trial("overlay_beside_a_qemu_that_writes_is_refused", overlay_beside_writer),
        trial("writer_beside_a_qemu_that_writes_is_refused", writer_beside_writer),
        trial("writer_beside_a_qemu_that_reads_is_refused", writer_beside_reader),
        trial("readers_beside_a_qemu_that_reads_are_opened", readers_beside_reader),
        trial("qemu_cannot_write_what_a_disk_reads", qemu_writes_beside_reader),
        trial("qemu_can_read_what_a_disk_reads", qemu_reads_beside_reader),
        trial("qemu_can_open_nothing_that_a_disk_writes", qemu_beside_writer),
        trial("pmem_beside_a_qemu_that_writes_is_refused", pmem_beside_writer),
    ]
}

const RAW: &[&str] = &["-f", "raw"];
const RAW_READ_ONLY: &[&str] = &["-f", "raw", "-r"];

fn reader_beside_writer() {
    let file = image();
    let qemu = Holder::open(RAW, file.path());
    assert_eq!(
        refusal(&file, json!({"read_only": true})),
        ".path: PATH is being written by another program: stop that one, or wait for its end; a copy made before is damaged"
    );
    drop(qemu);
    assert!(try_open(fields(&file, json!({"read_only": true}))).is_ok());
}

fn overlay_beside_writer() {
    let file = image();
    let _qemu = Holder::open(RAW, file.path());
    assert!(refusal(&file, json!({"overlay": "temp"})).contains("is being written by another program"));
}

fn writer_beside_writer() {
    let file = image();
    let _qemu = Holder::open(RAW, file.path());
    assert_eq!(
        refusal(&file, json!({})),
        ".path: PATH is locked by another program: stop that one, or set \"read_only\" for both, or use an \"overlay\""
    );
}

fn writer_beside_reader() {
    let file = image();
    let _qemu = Holder::open(RAW_READ_ONLY, file.path());
    assert!(refusal(&file, json!({})).contains("is locked by another program: "));
}

fn readers_beside_reader() {
    let file = image();
    let _qemu = Holder::open(RAW_READ_ONLY, file.path());
    let _first = try_open(fields(&file, json!({"read_only": true}))).unwrap();
    assert!(try_open(fields(&file, json!({"read_only": true}))).is_ok());
}

fn qemu_writes_beside_reader() {
    let file = image();
    let disk = try_open(fields(&file, json!({"read_only": true}))).unwrap();
    let (could, said) = qemu_io(RAW, file.path(), &["write -P 7 0 512"]);
    assert!(!could && said.contains("Failed to get"), "{said}");
    drop(disk);
    let (could, said) = qemu_io(RAW, file.path(), &["write -P 7 0 512"]);
    assert!(could, "{said}");
    assert_eq!(bytes_of(&file)[..512], [7; 512]);
}

fn qemu_reads_beside_reader() {
    let file = image();
    let _disk = try_open(fields(&file, json!({"read_only": true}))).unwrap();
    let (could, said) = qemu_io(RAW_READ_ONLY, file.path(), &["read -P 1 512 512"]);
    assert!(could && said.contains("read 512/512 bytes"), "{said}");
}

fn qemu_beside_writer() {
    let file = image();
    let _disk = try_open(fields(&file, json!({}))).unwrap();
    let (could, said) = qemu_io(RAW, file.path(), &["write -P 7 0 512"]);
    assert!(!could && said.contains("Failed to get"), "{said}");
    let (could, said) = qemu_io(RAW_READ_ONLY, file.path(), &["read 0 512"]);
    assert!(!could && said.contains("Failed to get"), "{said}");
    assert_eq!(bytes_of(&file), bytes_of(&image()));
}

fn pmem_beside_writer() {
    let file = sparse_image(2);
    let _qemu = Holder::open(RAW, file.path());
    let entry = vmm_virtio_devices::KINDS.iter().find(|entry| entry.name == "pmem").unwrap();
    let setting =
        vmm_virtio::Setting { directory: std::path::Path::new("."), vcpus: 1, id: "pmem0", plan_only: false };
    let opened = entry.open(json!({"path": file.path(), "read_only": true}), &setting);
    let message = opened.err().expect("it is locked").to_string();
    assert!(message.contains("is being written by another program"), "{message}");
}

/// The message for a disk that can't be opened, with PATH for the file's path.
fn refusal(file: &tempfile::NamedTempFile, more: serde_json::Value) -> String {
    let error = try_open(fields(file, more)).err().expect("it is refused");
    error.to_string().replace(file.path().to_str().unwrap(), "PATH")
}
