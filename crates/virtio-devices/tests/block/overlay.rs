//! Writes to an overlay, which don't change the base.

use serde_json::json;
use tempfile::TempDir;
use vmm_virtio::testing::Driver;

use crate::disk::*;

fn overlay(file: &tempfile::NamedTempFile) -> Driver {
    start(fields(file, json!({"overlay": "temp"})))
}

#[test]
fn write_stays_in_the_overlay() {
    let file = image();
    let mut driver = overlay(&file);
    assert_eq!(send(&mut driver, OUT, 1, &[0xaa; 512]), OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    // A read across the end of the written range, and across the end of its block.
    let (data, status) = read(&mut driver, 0, 16 * 512);
    let mut expected: Vec<u8> = (0..16).flat_map(|sector| [sector; 512]).collect();
    expected[512..1024].fill(0xaa);
    assert_eq!((data, status), (expected, OK));
    assert_eq!(bytes_of(&file), bytes_of(&image()));
}

/// `on_reboot: restart` starts another machine with the same disk: flushed data must be there.
#[test]
fn write_survives_the_machine_and_the_lock_too() {
    let file = image();
    let mut driver = overlay(&file);
    assert_eq!(send(&mut driver, OUT, 1, &[0xaa; 512]), OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    let mut driver = driver.power_cycle();
    driver.init(0);
    assert_eq!(read(&mut driver, 1, 512), (vec![0xaa; 512], OK));
    assert!(try_open(fields(&file, json!({}))).is_err(), "the base is locked");
}

#[test]
fn overlays_share_a_base() {
    let file = image();
    let (mut first, mut second) = (overlay(&file), overlay(&file));
    assert_eq!(send(&mut first, OUT, 0, &[1; 512]), OK);
    assert_eq!(send(&mut second, OUT, 0, &[2; 512]), OK);
    assert_eq!(read(&mut first, 0, 512), (vec![1; 512], OK));
    assert_eq!(read(&mut second, 0, 512), (vec![2; 512], OK));
    assert_eq!(read(&mut second, 1, 512), (vec![1; 512], OK));
}

#[test]
fn base_has_no_writer_meanwhile() {
    let file = image();
    let _driver = overlay(&file);
    assert!(try_open(fields(&file, json!({}))).is_err());
}

#[test]
fn base_that_is_read_only_is_enough() {
    let file = image();
    std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    let mut driver = overlay(&file);
    assert_eq!(send(&mut driver, OUT, 0, &[1; 512]), OK);
}

/// An overlay block has 8 sectors. This write covers a part of one, a whole one, and a part of another.
#[test]
fn write_over_blocks_keeps_what_is_around() {
    let file = image();
    let mut driver = overlay(&file);
    assert_eq!(send(&mut driver, OUT, 6, &[0xbb; 12 * 512]), OK);
    let (data, _) = read(&mut driver, 0, 32 * 512);
    let mut expected: Vec<u8> = (0..32).flat_map(|sector| [sector; 512]).collect();
    expected[6 * 512..18 * 512].fill(0xbb);
    assert_eq!(data, expected);
}

#[test]
fn zeroes_and_discard_of_parts_of_blocks() {
    let file = image();
    let mut driver = overlay(&file);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(3, 20, 1)), OK);
    // A discard frees only whole blocks that were written: here the one from sector 8.
    assert_eq!(send(&mut driver, OUT, 8, &[5; 8 * 512]), OK);
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(7, 20, 0)), OK);
    let (data, _) = read(&mut driver, 0, 32 * 512);
    let mut expected: Vec<u8> = (0..32).flat_map(|sector| [sector; 512]).collect();
    expected[3 * 512..24 * 512].fill(0);
    assert_eq!(data, expected);
    assert_eq!(bytes_of(&file), bytes_of(&image()));
}

/// The last block is shorter than the others.
#[test]
fn disk_that_ends_within_a_block() {
    let file = image();
    file.as_file().set_len(9 * 512).unwrap();
    let mut driver = overlay(&file);
    assert_eq!(driver.config(0, 8), 9_u64.to_le_bytes());
    assert_eq!(send(&mut driver, OUT, 8, &[1; 512]), OK);
    assert_eq!(read(&mut driver, 7, 1024), ([[7; 512], [1; 512]].concat(), OK));
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(8, 1, 0)), OK);
    assert_eq!(read(&mut driver, 8, 512), (vec![0; 512], OK));
    assert_eq!(read(&mut driver, 8, 1024).1, IOERR);
}

#[test]
fn directory_of_the_overlay_is_left_empty() {
    let file = image();
    let directory = TempDir::new().unwrap();
    let overlay = json!({"temp_in": directory.path()});
    let mut driver = start(fields(&file, json!({"overlay": overlay})));
    assert_eq!(send(&mut driver, OUT, 0, &[1; 512]), OK);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn note_says_that_it_is_temporary() {
    let file = image();
    let note = try_open(fields(&file, json!({"overlay": "temp"}))).unwrap().note().unwrap();
    assert_eq!(note, format!("{}, raw, temporary, I/O by the disk's thread", file.path().display()));
}
