//! A file that becomes longer or shorter while the guest runs.

use serde_json::json;

use crate::disk::*;

#[test]
fn growth_is_told_and_can_be_read() {
    let file = image();
    let mut driver = start(fields(&file, json!({})));
    assert_eq!(driver.config(0, 8), SECTORS.to_le_bytes());
    // It runs: what it looked at when it started is past.
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
    // Half a sector more is none.
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
