//! A build without features: a config that needs one is refused with its name, and the same devices work otherwise.
#![cfg(not(any(feature = "io-uring", feature = "qcow2", feature = "usernet")))]

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::NamedTempFile;
use vmm_virtio::{DeviceBlame, DeviceError, Setting, VirtioDevice};
use vmm_virtio_devices::KINDS;

fn open(kind: &str, fields: Value) -> Result<Box<dyn VirtioDevice>, DeviceError> {
    let entry = KINDS.iter().find(|entry| entry.name == kind).unwrap();
    let setting = Setting { directory: Path::new("/"), vcpus: 1, id: "id", plan_only: false };
    entry.open(fields, &setting)
}

/// The error is the config's, not the host's.
fn refusal(kind: &str, fields: Value) -> String {
    let error = open(kind, fields).map(|_| ()).unwrap_err();
    assert_eq!(error.blame, DeviceBlame::Config);
    error.to_string()
}

/// A disk of zeros, 1 MiB.
fn disk() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    file
}

#[test]
fn disk_by_io_uring_is_refused() {
    let file = disk();
    assert_eq!(
        refusal("block", json!({"path": file.path(), "io": "io_uring"})),
        ".io: built without the feature \"io-uring\": say \"threads\" or \"auto\", or use a build with it"
    );
}

#[test]
fn disk_whose_io_is_not_chosen_is_served_by_threads() {
    let file = disk();
    let disk = open("block", json!({"path": file.path()})).unwrap();
    let note = disk.note().unwrap();
    assert!(note.contains(", raw, by threads, because io_uring is refused: built without"), "{note}");
}

#[test]
fn qcow2_image_is_refused_with_its_conversion() {
    let file = disk();
    let shown = file.path().display();
    let needs = "built without the feature \"qcow2\": convert it, qemu-img convert -f qcow2 -O raw";
    assert_eq!(
        refusal("block", json!({"path": file.path(), "format": "qcow2"})),
        format!(".format: {needs} {shown} NEW.raw, or use a build with it")
    );
}

#[test]
fn user_backend_is_refused_whatever_its_fields() {
    let message =
        ".backend: built without the feature \"usernet\": use a TAP or passt, or use a build with it";
    assert_eq!(refusal("net", json!({"backend": "user"})), message);
    let fields =
        json!({"backend": "user", "allow": ["dns"], "forward": ["8080:80"], "dns": "192.0.2.1", "mtu": 1500});
    assert_eq!(refusal("net", fields), message);
}

#[test]
fn card_with_another_backend_opens_and_still_refuses_the_fields_of_that_one() {
    let (ours, _theirs) = UnixDatagram::pair().unwrap();
    let backend = json!({"fd": ours.as_raw_fd()});
    assert_eq!(
        refusal("net", json!({"backend": backend, "forward": ["8080:80"]})),
        ".forward: only \"backend\": \"user\" supports this; use that, or remove the field"
    );
    assert!(open("net", json!({"backend": backend})).is_ok());
}
