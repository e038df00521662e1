//! Requests of the maximum length, and longer.

use std::sync::mpsc::{Receiver, Sender};

use serde_json::{Value, json};
use vmm_virtio::testing::{Buf, DEADLINE, Driver};

use crate::disk::*;
use crate::qcow2::Images;

/// The status of a read that fills the same MiB 253 times, and `last`: with header and status these are all
/// descriptors of a queue.
fn answer_to_254_buffers(driver: &mut Driver, last: Buf<'_>) -> u8 {
    let header = header(IN, 0);
    let mut bufs = vec![Buf::Read(&header)];
    bufs.extend([MIB; 253]);
    bufs.extend([last, Buf::Write(1)]);
    let found = status(&driver.queue(0).request(&bufs));
    assert!(!driver.needs_reset());
    assert_eq!(read(driver, 1, 512), (vec![0; 512], OK));
    found
}

/// One sector more than 254 buffers of 1 MiB, the maximum in the configuration.
fn answer_to_a_sector_too_much(fields_of_disk: Value) -> u8 {
    let file = sparse_image(255);
    let mut driver = start(fields(&file, fields_of_disk));
    assert_eq!(driver.config(8, 8), [0x10_0000_u32.to_le_bytes(), 254_u32.to_le_bytes()].concat());
    answer_to_254_buffers(&mut driver, Buf::WriteAt(SPARE, (1 << 20) + 512))
}

#[test]
fn data_longer_than_all_buffers_may_be_fails() {
    assert_eq!(answer_to_a_sector_too_much(json!({})), IOERR);
    assert_eq!(answer_to_a_sector_too_much(json!({"overlay": "temp"})), IOERR);
}

/// In a qcow2 image, where unallocated data needs no disk I/O.
#[test]
fn data_as_long_as_all_buffers_may_be_is_read() {
    let images = Images::new();
    let path = images.create("a.qcow2", 254 << 20, None);
    let mut driver = start(json!({"path": path, "format": "qcow2"}));
    assert_eq!(answer_to_254_buffers(&mut driver, MIB), OK);
}

/// 14 concurrent reads of 16 MiB: with header and status these are 252 descriptors.
fn send_14_reads_of_16_mib(driver: &mut Driver) {
    let header = header(IN, 0);
    let mut bufs = vec![Buf::Read(&header)];
    bufs.extend([MIB; 16]);
    bufs.push(Buf::Write(1));
    let mut queue = driver.queue(0);
    for _ in 0..14 {
        queue.add(&bufs);
    }
    queue.kick();
}

fn assert_14_are_done(driver: &mut Driver) {
    for _ in 0..14 {
        assert_eq!(status(&driver.queue(0).poll_used()), OK);
    }
    assert_eq!(read(driver, 1, 512), (vec![0; 512], OK));
}

/// A qcow2 image with 16 MiB that were never written.
fn start_qcow2(images: &Images) -> (Driver, Receiver<Call>, Sender<()>) {
    let path = images.create("a.qcow2", 16 << 20, None);
    start_watched(json!({"path": path, "format": "qcow2"}))
}

/// A turn is 8 MiB of work, less than one of these requests.
#[test]
fn image_beyond_its_turn_serves_what_is_left_in_the_next() {
    let images = Images::new();
    let (mut driver, calls, go) = start_qcow2(&images);
    send_14_reads_of_16_mib(&mut driver);
    assert_eq!(calls.recv_timeout(DEADLINE).unwrap().done, 1);
    drop((calls, go));
    assert_14_are_done(&mut driver);
}

#[test]
fn flushes_of_an_image_have_turns_too() {
    let images = Images::new();
    let (mut driver, calls, go) = start_qcow2(&images);
    let header = header(FLUSH, 0);
    let mut queue = driver.queue(0);
    for _ in 0..14 {
        queue.add(&[Buf::Read(&header), Buf::Write(1)]);
    }
    queue.kick();
    // Each is 1 MiB of work.
    assert_eq!(calls.recv_timeout(DEADLINE).unwrap().done, 8);
    drop((calls, go));
    assert_14_are_done(&mut driver);
}

/// The reset is written during the image's first turn. The next one may have started if its timer expired
/// before that.
#[test]
fn reset_comes_between_the_turns_of_an_image() {
    let images = Images::new();
    let (mut driver, calls, go) = start_qcow2(&images);
    send_14_reads_of_16_mib(&mut driver);
    calls.recv_timeout(DEADLINE).unwrap();
    driver.reset_while(|_| drop((calls, go)));
    let done = driver.control().counters().requests.get();
    assert!(done <= 2, "{done} of 14 requests were served in front of the reset");
    driver.init(FEATURES);
    assert_eq!(read(&mut driver, 1, 512), (vec![0; 512], OK));
}

/// At most 64 MiB are in flight, because a reset waits for them.
#[test]
fn requests_in_flight_are_no_more_than_a_reset_can_wait_for() {
    let file = sparse_image(16);
    let (mut driver, calls, go) = start_watched(fields(&file, json!({"io": "threads"})));
    send_14_reads_of_16_mib(&mut driver);
    let first = calls.recv_timeout(DEADLINE).unwrap();
    assert!(first.in_flight <= 4, "{first:?}");
    drop((calls, go));
    assert_14_are_done(&mut driver);
}

/// One queue keeps requesting more than a turn, each time preceded by a number; the other queue reads the
/// number once.
#[test]
fn queue_that_takes_all_of_each_turn_leaves_one_to_another() {
    let images = Images::new();
    let path = images.create("a.qcow2", 16 << 20, None);
    let mut driver = driver(json!({"path": path, "format": "qcow2", "queues": 2}));
    driver.negotiate(FEATURES | MQ);
    driver.set_up_queue(0, 256);
    driver.set_up_queue(1, 256);
    let (write, long, read) = (header(OUT, 0), header(IN, 0), header(IN, 0));
    let mut bufs = vec![Buf::Read(&long)];
    bufs.extend([MIB; 8]);
    bufs.push(Buf::Write(1));
    for number in 1..=10 {
        let mut queue = driver.queue(0);
        queue.add(&[Buf::Read(&write), Buf::Read(&[number; 512]), Buf::Write(1)]);
        queue.add(&bufs);
    }
    driver.queue(1).add(&[Buf::Read(&read), Buf::Write(513)]);
    driver.driver_ok();
    let used = driver.queue(1).poll_used();
    // Its own turn is the second one; the first queue had the one before.
    assert_eq!((status(&used), used.bytes[0]), (OK, 1));
    for _ in 0..20 {
        assert_eq!(status(&driver.queue(0).poll_used()), OK);
    }
}

#[test]
fn discard_and_zeroes_longer_than_the_configuration_says_fail() {
    let file = sparse_image(2048);
    let mut driver = start(fields(&file, json!({})));
    assert_eq!(driver.config(36, 4), (1_u32 << 21).to_le_bytes());
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(0, 1 << 21, 0)), OK);
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(0, (1 << 21) + 1, 0)), IOERR);
    assert_eq!(driver.config(48, 4), (1_u32 << 16).to_le_bytes());
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(0, 1 << 16, 1)), OK);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(0, (1 << 16) + 1, 1)), IOERR);
}
