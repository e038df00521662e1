//! A file that grows or shrinks while the guest runs.

use serde_json::json;

use crate::disk::*;

#[test]
fn growth_is_told_and_can_be_read() {
    let file = image();
    let mut driver = start(fields(&file, json!({})));
    assert_eq!(driver.config(0, 8), SECTORS.to_le_bytes());
    // It runs, so its check at the start is over.
    assert_eq!(read(&mut driver, 0, 512).1, OK);
    file.as_file().set_len((SECTORS + 8) * 512).unwrap();
    driver.wait_config_change();
    assert_eq!(driver.config(0, 8), (SECTORS + 8).to_le_bytes());
    assert_eq!(read(&mut driver, SECTORS, 4096), (vec![0; 4096], OK));
}

#[test]
fn shrinking_is_told_and_nothing_behind_is_there() {
    let file = image();
    let mut driver = start(fields(&file, json!({})));
    assert_eq!(read(&mut driver, 0, 512).1, OK);
    // Half a sector more doesn't count.
    file.as_file().set_len(10 * 512 + 256).unwrap();
    driver.wait_config_change();
    assert_eq!(driver.config(0, 8), 10_u64.to_le_bytes());
    assert_eq!(read(&mut driver, 10, 512).1, IOERR);
    assert_eq!(read(&mut driver, 9, 512), (vec![9; 512], OK));
}

#[test]
fn change_before_the_start_is_told_at_the_start() {
    let file = image();
    let mut driver = driver(fields(&file, json!({})));
    file.as_file().set_len(512).unwrap();
    driver.init(FEATURES);
    driver.wait_config_change();
    assert_eq!(driver.config(0, 8), 1_u64.to_le_bytes());
}

/// The disk's size in bytes, as reported by its device.
fn reported(driver: &vmm_virtio::testing::Driver) -> u64 {
    driver.report()["size_bytes"].as_u64().unwrap()
}

#[test]
fn update_of_the_size_makes_the_file_longer_and_is_told_at_once() {
    let file = image();
    let mut driver = start(fields(&file, json!({})));
    driver.update(json!({"size": "68K"})).unwrap();
    assert_eq!(reported(&driver), 68 << 10);
    driver.wait_config_change();
    assert_eq!(driver.config(0, 8), 136_u64.to_le_bytes());
    assert_eq!(file.as_file().metadata().unwrap().len(), 68 << 10);
    assert_eq!(read(&mut driver, 127, 1024), ([[127; 512], [0; 512]].concat(), OK));
}

#[test]
fn update_of_the_size_while_the_disk_is_suspended_is_told_when_it_goes_on() {
    let file = image();
    let mut driver = start(fields(&file, json!({})));
    driver.suspend();
    driver.update(json!({"size": "68K"})).unwrap();
    assert_eq!(reported(&driver), 68 << 10);
    driver.resume();
    driver.wait_config_change();
    assert_eq!(driver.config(0, 8), 136_u64.to_le_bytes());
}

#[test]
fn update_to_a_size_that_cannot_be_says_why_and_changes_nothing() {
    let file = image();
    let driver = start(fields(&file, json!({})));
    let refusal = |size: &str| driver.update(json!({"size": size})).unwrap_err().to_string();
    assert_eq!(
        refusal("65537"),
        ".size: 65537 isn't a whole number of the disk's blocks of 512 bytes: try 66048"
    );
    // Rounded up it would be no 64-bit number.
    let most = u64::MAX.to_string();
    assert_eq!(
        refusal(&most),
        format!(".size: {most} isn't a whole number of the disk's blocks of 512 bytes")
    );
    assert_eq!(refusal("63K"), ".size: 63K is less than the current 64K: a disk can only grow at run time");
    assert_eq!(file.as_file().metadata().unwrap().len(), 64 << 10);
}

#[test]
fn update_of_the_size_of_another_disk_than_a_raw_one_that_is_written_says_what_to_do() {
    let file = image();
    let refusal = |more| {
        let driver = start(fields(&file, more));
        driver.update(json!({"size": "1M"})).unwrap_err().to_string()
    };
    assert_eq!(refusal(json!({"read_only": true})), ".size: the disk is read-only, and so is its size");
    assert_eq!(
        refusal(json!({"overlay": "temp"})),
        ".size: only a raw disk without an overlay can be resized at run time"
    );
    assert_eq!(file.as_file().metadata().unwrap().len(), 64 << 10);
}
