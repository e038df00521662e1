//! Malformed requests of every kind: each gets its status, and the disk continues.

use serde_json::json;
use vmm_virtio::testing::{Buf, Driver};

use crate::disk::*;

/// The status of a chain, which is its last byte.
fn answer(bufs: &[Buf<'_>]) -> u8 {
    let file = image();
    let mut driver = start(fields(&file, json!({})));
    let found = status(&driver.queue(0).request(bufs));
    assert_goes_on(&mut driver);
    assert_eq!(bytes_of(&file), bytes_of(&image()), "nothing was changed");
    found
}

fn assert_goes_on(driver: &mut Driver) {
    assert!(!driver.needs_reset());
    assert_eq!(read(driver, 3, 512), (vec![3; 512], OK));
}

fn answer_to(kind: u32, sector: u64, data: &[u8]) -> u8 {
    answer(&[Buf::Read(&header(kind, sector)), Buf::Read(data), Buf::Write(1)])
}

#[test]
fn header_too_short_fails() {
    assert_eq!(answer(&[Buf::Read(&[0; 15]), Buf::Write(513)]), IOERR);
}

#[test]
fn header_missing_fails() {
    assert_eq!(answer(&[Buf::Write(513)]), IOERR);
}

#[test]
fn unknown_type_is_unsupported() {
    assert_eq!(answer(&[Buf::Read(&header(0x1234, 0)), Buf::Write(1)]), UNSUPP);
    // VIRTIO_BLK_T_SCSI_CMD, which was removed in version 1.
    assert_eq!(answer(&[Buf::Read(&header(2, 0)), Buf::Write(1)]), UNSUPP);
}

#[test]
fn sector_at_the_end_fails() {
    assert_eq!(answer(&[Buf::Read(&header(IN, SECTORS)), Buf::Write(513)]), IOERR);
    assert_eq!(answer_to(OUT, SECTORS, &[1; 512]), IOERR);
}

#[test]
fn data_over_the_end_fails() {
    assert_eq!(answer(&[Buf::Read(&header(IN, SECTORS - 1)), Buf::Write(1025)]), IOERR);
    assert_eq!(answer_to(OUT, SECTORS - 1, &[1; 1024]), IOERR);
}

#[test]
fn sector_that_overflows_fails() {
    assert_eq!(answer(&[Buf::Read(&header(IN, u64::MAX)), Buf::Write(513)]), IOERR);
    // 2^55 sectors are 2^64 bytes: with an unchecked multiplication this is sector 0.
    assert_eq!(answer_to(OUT, 1 << 55, &[1; 512]), IOERR);
}

#[test]
fn data_not_whole_sectors_fails() {
    assert_eq!(answer(&[Buf::Read(&header(IN, 0)), Buf::Write(512)]), IOERR);
    assert_eq!(answer_to(OUT, 0, &[1; 511]), IOERR);
}

#[test]
fn data_in_the_wrong_direction_fails() {
    assert_eq!(answer(&[Buf::Read(&header(IN, 0)), Buf::Read(&[1; 512]), Buf::Write(513)]), IOERR);
    assert_eq!(answer(&[Buf::Read(&header(OUT, 0)), Buf::Read(&[1; 512]), Buf::Write(513)]), IOERR);
    assert_eq!(answer_to(FLUSH, 0, &[1; 512]), IOERR);
}

#[test]
fn serial_of_another_length_fails() {
    assert_eq!(answer(&[Buf::Read(&header(GET_ID, 0)), Buf::Write(20)]), IOERR);
    assert_eq!(answer(&[Buf::Read(&header(GET_ID, 0)), Buf::Write(22)]), IOERR);
}

#[test]
fn discard_with_a_flag_is_unsupported() {
    assert_eq!(answer_to(DISCARD, 0, &segment(0, 8, 1)), UNSUPP);
    assert_eq!(answer_to(DISCARD, 0, &segment(0, 8, 2)), UNSUPP);
}

#[test]
fn write_zeroes_with_an_unknown_flag_is_unsupported() {
    assert_eq!(answer_to(WRITE_ZEROES, 0, &segment(0, 8, 2)), UNSUPP);
}

#[test]
fn segment_outside_the_disk_fails() {
    assert_eq!(answer_to(DISCARD, 0, &segment(SECTORS, 1, 0)), IOERR);
    assert_eq!(answer_to(WRITE_ZEROES, 0, &segment(SECTORS - 1, 2, 0)), IOERR);
    assert_eq!(answer_to(WRITE_ZEROES, 0, &segment(u64::MAX, 2, 0)), IOERR);
    assert_eq!(answer_to(DISCARD, 0, &segment(0, u32::MAX, 0)), IOERR);
}

#[test]
fn segment_half_or_doubled_fails() {
    assert_eq!(answer_to(DISCARD, 0, &[0; 8]), IOERR);
    assert_eq!(answer_to(WRITE_ZEROES, 0, &[0; 32]), IOERR);
    assert_eq!(answer(&[Buf::Read(&header(DISCARD, 0)), Buf::Write(1)]), IOERR);
}

#[test]
fn segment_of_nothing_is_done() {
    assert_eq!(answer_to(DISCARD, 0, &segment(0, 0, 0)), OK);
    assert_eq!(answer_to(WRITE_ZEROES, 0, &segment(SECTORS, 0, 1)), OK);
}

#[test]
fn request_of_nothing_is_done() {
    assert_eq!(answer(&[Buf::Read(&header(IN, 0)), Buf::Write(1)]), OK);
    assert_eq!(answer(&[Buf::Read(&header(OUT, SECTORS)), Buf::Write(1)]), OK);
}

#[test]
fn feature_not_taken_is_unsupported() {
    let file = image();
    let mut driver = driver(fields(&file, json!({})));
    driver.init(0);
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(0, 8, 0)), UNSUPP);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(0, 8, 0)), UNSUPP);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), UNSUPP);
    assert_goes_on(&mut driver);
}

#[test]
fn request_without_room_for_its_status_needs_a_reset() {
    let file = image();
    let mut driver = start(fields(&file, json!({})));
    let mut queue = driver.queue(0);
    queue.add(&[Buf::Read(&header(FLUSH, 0))]);
    queue.kick();
    driver.wait_needs_reset();
    driver.init(FEATURES);
    assert_goes_on(&mut driver);
}

/// The buffer of a failed read is unchanged, and contains nothing of the monitor.
#[test]
fn read_that_fails_says_that_nothing_was_written() {
    let file = image();
    let mut driver = start(fields(&file, json!({})));
    let used = driver.queue(0).request(&[Buf::Read(&header(IN, SECTORS)), Buf::Write(513)]);
    assert_eq!((used.len, used.bytes[0], status(&used)), (0, vmm_virtio::testing::UNWRITTEN, IOERR));
}

/// An error of the host, not the guest: the file is shorter than the disk, and its size hasn't been checked
/// since.
#[test]
fn error_of_the_host_reaches_the_guest() {
    let file = image();
    let mut driver = start(fields(&file, json!({})));
    assert_eq!(read(&mut driver, 100, 512).1, OK);
    file.as_file().set_len(512).unwrap();
    assert_eq!(read(&mut driver, 100, 512).1, IOERR);
    assert!(!driver.needs_reset());
    assert_eq!(read(&mut driver, 0, 512), (vec![0; 512], OK));
}
