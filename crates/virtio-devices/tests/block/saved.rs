//! A disk whose state is saved, and goes on with a copy of its file.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::NamedTempFile;
use vmm_virtio::testing::Driver;

use super::disk::{OK, OUT, bytes_of, driver, fields, image, read, send, sparse_image, start, try_open};
use super::qcow2::Images;

/// WRITEBACK in the configuration.
const WRITEBACK: u64 = 32;

/// A copy of the file with its modification time.
fn copy(file: &NamedTempFile) -> NamedTempFile {
    let copy = copy_without_time(file);
    copy.as_file().set_modified(file.as_file().metadata().unwrap().modified().unwrap()).unwrap();
    copy
}

fn copy_without_time(file: &NamedTempFile) -> NamedTempFile {
    let copy = NamedTempFile::new().unwrap();
    std::fs::copy(file.path(), copy.path()).unwrap();
    copy
}

/// The driver and its memory with another disk, so that the file can be opened again.
fn unplugged(source: Driver) -> Driver {
    let other = sparse_image(1);
    source.beside(try_open(fields(&other, json!({}))).unwrap())
}

/// Saves a paused disk and closes it.
fn save_and_close(source: Driver) -> (Vec<u8>, Driver) {
    let section = source.save().unwrap();
    (section, unplugged(source))
}

/// Why the disk of `config` refuses the section.
fn refused(driver: &Driver, config: Value, section: &[u8]) -> String {
    driver.beside(try_open(config).unwrap()).load(section).unwrap_err().to_string()
}

fn qcow2(path: &Path) -> Value {
    json!({"path": path, "format": "qcow2"})
}

/// A paused disk on which the guest has just written.
fn written(config: Value) -> Driver {
    let mut source = start(config);
    assert_eq!(send(&mut source, OUT, 3, &[7; 512]), OK);
    source.suspend();
    source
}

/// The section as a writer of version 1 has written it: without what follows the 33 bytes of its fields.
fn as_version_1(section: &[u8]) -> Vec<u8> {
    let kind = b"virtio.block";
    let at = section.windows(kind.len()).position(|bytes| bytes == kind).unwrap() + kind.len();
    let state = &section[at + 8..][..33];
    [&section[..at], &[1, 0, 1, 0, 33, 0, 0, 0], state].concat()
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
    let earlier = copy(file);
    source.resume();
    assert_eq!(send(&mut source, OUT, 4, &[8; 512]), OK, "the source goes on");
    source.suspend();
    let section_later = source.save().unwrap();
    assert_ne!(section, section_later, "further along in the rings");
    let later = copy(file);
    let before = fields(&earlier, config.clone());
    assert!(refused(&source, before, &section_later).contains("is another file than at the snapshot"));
    let mut restored = source.beside(try_open(fields(&later, config)).unwrap());
    drop(source);
    restored.load(&section_later).unwrap();
    restored.resume();
    assert_eq!(read(&mut restored, 3, 512), (vec![7; 512], OK));
    assert_eq!(read(&mut restored, 4, 512), (vec![8; 512], OK));
    assert_eq!(restored.config(WRITEBACK, 1), [0], "the driver's choice");
    assert_eq!(send(&mut restored, OUT, 4, &[9; 512]), OK);
    assert_ne!(bytes_of(file)[4 * 512], 9, "it has its own file");
}

fn goes_on_with_its_file(config: &Value) {
    let (section, driver) = save_and_close(written(config.clone()));
    let mut restored = driver.beside(try_open(config.clone()).unwrap());
    restored.load(&section).unwrap();
    assert!(try_open(config.clone()).is_err(), "it is locked again");
    restored.resume();
    assert_eq!(read(&mut restored, 3, 512), (vec![7; 512], OK));
}

#[test]
fn raw_disk_goes_on_with_its_file() {
    let file = image();
    goes_on_with_its_file(&fields(&file, json!({})));
}

/// Nothing is written to it when the monitor ends.
#[test]
fn qcow2_image_goes_on_with_its_file() {
    let images = Images::new();
    goes_on_with_its_file(&qcow2(&images.create("a.qcow2", 1 << 20, None)));
}

/// Another guest writes the same bytes at once, so that both writes may be within one tick of the clock.
fn written_after_the_save_is_refused(config: Value) {
    let (section, driver) = save_and_close(written(config.clone()));
    drop(written(config.clone()));
    let text = refused(&driver, config.clone(), &section);
    let path = config["path"].as_str().unwrap();
    let expected = format!("test: virtio.block: stamp: {path} was written after the snapshot (then ");
    assert!(text.starts_with(&expected), "{text}");
}

#[test]
fn raw_disk_written_after_the_save_is_refused() {
    let file = image();
    written_after_the_save_is_refused(fields(&file, json!({})));
}

#[test]
fn raw_disk_past_the_page_cache_written_after_the_save_is_refused() {
    let file = sparse_image(1);
    written_after_the_save_is_refused(fields(&file, json!({"direct": true})));
}

#[test]
fn qcow2_image_written_after_the_save_is_refused() {
    let images = Images::new();
    written_after_the_save_is_refused(qcow2(&images.create("a.qcow2", 1 << 20, None)));
}

#[test]
fn read_only_disk_that_has_changed_is_refused() {
    let (file, config) = (sparse_image(1), json!({"read_only": true}));
    let (section, driver) = save_and_close(driver(fields(&file, config.clone())));
    let unchanged = driver.beside(try_open(fields(&file, config.clone())).unwrap());
    unchanged.load(&section).unwrap();
    std::fs::write(file.path(), vec![1; 1 << 20]).unwrap();
    let text = refused(&driver, fields(&file, config), &section);
    assert!(text.contains(" was written after the snapshot "), "{text}");
}

#[test]
fn qcow2_image_whose_backing_file_has_changed_is_refused() {
    let images = Images::new();
    let base = images.create("base.qcow2", 1 << 20, None);
    let path = images.create("a.qcow2", 1 << 20, Some(("base.qcow2", "qcow2")));
    let config = json!({"path": path, "format": "qcow2", "backing": [base]});
    let (section, driver) = save_and_close(written(config.clone()));
    driver.beside(try_open(config.clone()).unwrap()).load(&section).unwrap();
    drop(written(qcow2(&base)));
    let text = refused(&driver, config, &section);
    let expected = format!("test: virtio.block: stamp: {} was written after the snapshot ", base.display());
    assert!(text.starts_with(&expected), "{text}");
}

#[test]
fn copy_without_the_modification_time_is_refused() {
    let file = image();
    let source = written(fields(&file, json!({})));
    let section = source.save().unwrap();
    let copy = copy_without_time(&file);
    let text = refused(&source, fields(&copy, json!({})), &section);
    assert!(text.ends_with(": copy with cp --preserve=timestamps"), "{text}");
}

/// Version 1 has no stamps.
#[test]
fn state_of_version_1_is_loaded_without_a_check_of_the_file() {
    let file = image();
    let source = written(fields(&file, json!({})));
    let section = source.save().unwrap();
    let copy = copy_without_time(&file);
    let restored = source.beside(try_open(fields(&copy, json!({}))).unwrap());
    restored.load(&as_version_1(&section)).unwrap();
    assert_ne!(restored.save().unwrap(), as_version_1(&section), "the newest version is written");
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
