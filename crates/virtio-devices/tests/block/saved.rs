//! A disk whose state is saved, and goes on with a copy of its file.

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::disk::{OK, OUT, driver, fields, image, read, send, sparse_image, start, try_open};

/// WRITEBACK in the configuration.
const WRITEBACK: u64 = 32;

/// A copy of the file.
fn copy(file: &NamedTempFile) -> NamedTempFile {
    let copy = NamedTempFile::new().unwrap();
    std::fs::copy(file.path(), copy.path()).unwrap();
    copy
}

/// Why the disk of `other` refuses the state of that of `file`.
fn refusal(file: &NamedTempFile, other: Value) -> String {
    let source = driver(fields(file, json!({})));
    let section = source.save().unwrap();
    source.beside(try_open(other).unwrap()).load(&section).unwrap_err().to_string()
}

fn goes_on_with_a_copy(config: Value, file: &NamedTempFile) {
    let mut source = start(fields(file, config.clone()));
    assert_eq!(send(&mut source, OUT, 3, &[7; 512]), OK);
    source.write_config(WRITEBACK, &[0]);
    source.suspend();
    let section = source.save().unwrap();
    let copy = copy(file);
    source.resume();
    assert_eq!(send(&mut source, OUT, 4, &[8; 512]), OK, "the source goes on");
    source.suspend();
    let section_later = source.save().unwrap();
    assert_ne!(section, section_later, "further along in the rings");
    let mut restored = source.beside(try_open(fields(&copy, config)).unwrap());
    drop(source);
    restored.load(&section_later).unwrap();
    restored.resume();
    assert_eq!(read(&mut restored, 3, 512), (vec![7; 512], OK));
    assert_ne!(read(&mut restored, 4, 512).0, [8; 512], "written after the copy");
    assert_eq!(restored.config(WRITEBACK, 1), [0], "the driver's choice");
}

#[test]
fn raw_disk_goes_on_with_a_copy() {
    goes_on_with_a_copy(json!({}), &image());
}

#[test]
fn raw_disk_by_threads_goes_on_with_a_copy() {
    goes_on_with_a_copy(json!({"io": "threads"}), &image());
}

#[test]
fn state_of_a_disk_of_another_length_is_refused() {
    let (file, other) = (sparse_image(1), sparse_image(2));
    let text = refusal(&file, fields(&other, json!({})));
    assert_eq!(text, "test: virtio.block: sectors: is 2048, that of this disk 4096");
}

#[test]
fn state_of_a_disk_with_another_serial_is_refused() {
    let (file, other) = (sparse_image(1), sparse_image(1));
    let text = refusal(&file, fields(&other, json!({"serial": "other"})));
    assert_eq!(text, "test: virtio.block: serial: is \"disk0\", that of this disk \"other\"");
}

#[test]
fn state_of_a_disk_with_another_cache_mode_is_refused() {
    let (file, other) = (sparse_image(1), sparse_image(1));
    let text = refusal(&file, fields(&other, json!({"cache": "writethrough"})));
    assert_eq!(text, "test: virtio.block: writeback: differs from this disk's \"cache\"");
}

#[test]
fn state_of_a_writable_disk_is_refused_by_a_read_only_one() {
    let (file, other) = (sparse_image(1), sparse_image(1));
    let text = refusal(&file, fields(&other, json!({"read_only": true})));
    assert!(text.starts_with("test: offered: this device doesn't offer "), "{text}");
}

#[test]
fn temporary_disk_is_not_saved() {
    let file = image();
    let source = driver(fields(&file, json!({"overlay": "temp"})));
    let text = source.save().unwrap_err().to_string();
    assert_eq!(text, "test: a disk with a temporary overlay can't be saved, as its contents end here");
}

/// The size was changed by the user since the start.
#[test]
fn disk_that_has_grown_is_restored_with_its_size() {
    let file = sparse_image(1);
    let source = start(fields(&file, json!({})));
    source.update(json!({"size": "2M"})).unwrap();
    source.suspend();
    let section = source.save().unwrap();
    let copy = copy(&file);
    let restored = source.beside(try_open(fields(&copy, json!({}))).unwrap());
    drop(source);
    restored.load(&section).unwrap();
    assert_eq!(restored.config(0, 8), 4096_u64.to_le_bytes());
}
