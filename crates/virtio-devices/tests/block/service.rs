//! What a disk does for a well-behaved driver, with every I/O engine.

use std::sync::mpsc::{Receiver, Sender};

use serde_json::json;
use tempfile::NamedTempFile;
use vmm_virtio::testing::{Buf, DEADLINE, Driver};

use crate::disk::*;

fn read_gives_the_sectors(io: &str) {
    let file = image();
    let mut driver = start(fields(&file, json!({"io": io})));
    let (data, status) = read(&mut driver, 2, 1024);
    assert_eq!((&data[..512], &data[512..], status), (&[2; 512][..], &[3; 512][..], OK));
}

fn write_is_in_the_file_and_read_back(io: &str) {
    let file = image();
    let mut driver = start(fields(&file, json!({"io": io})));
    assert_eq!(send(&mut driver, OUT, 127, &[0xab; 512]), OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    assert_eq!(read(&mut driver, 127, 512), (vec![0xab; 512], OK));
    assert_eq!(bytes_of(&file)[127 * 512..], [0xab; 512]);
}

fn header_and_data_in_many_pieces(io: &str) {
    let file = image();
    let mut driver = start(fields(&file, json!({"io": io})));
    let header = header(IN, 5);
    let (a, rest) = header.split_at(1);
    let (b, c) = rest.split_at(8);
    let bufs = [Buf::Read(a), Buf::Read(b), Buf::Read(c), Buf::Write(100), Buf::Write(413)];
    // The status is the last byte, wherever the driver puts it.
    let used = driver.queue(0).request(&bufs);
    assert_eq!((&used.bytes[..512], used.bytes[512], used.len), (&[5; 512][..], OK, 513));
}

fn many_requests_in_flight_all_come_back(io: &str) {
    let file = image();
    let mut driver = start(fields(&file, json!({"io": io})));
    let headers: Vec<_> = (0..64).map(|sector| header(IN, sector)).collect();
    let mut queue = driver.queue(0);
    let mut expected: Vec<u16> = Vec::new();
    for header in &headers {
        expected.push(queue.add(&[Buf::Read(header), Buf::Write(513)]));
    }
    queue.kick();
    let mut found: Vec<u16> = Vec::new();
    for _ in 0..64 {
        let used = queue.poll_used();
        let sector = expected.iter().position(|head| *head == used.head).unwrap();
        assert_eq!((used.bytes[0], used.bytes[511], used.bytes[512]), (sector as u8, sector as u8, OK));
        found.push(used.head);
    }
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn discard_and_write_zeroes_give_up_room(io: &str) {
    let file = image();
    let mut driver = start(fields(&file, json!({"io": io})));
    // Sectors 8 to 15, 16 to 23 and 32 to 39 are pages of the file.
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(8, 8, 0)), OK);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(16, 8, 0)), OK);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(32, 8, 1)), OK);
    assert_eq!(read(&mut driver, 8, 4096), (vec![0; 4096], OK));
    assert_eq!(read(&mut driver, 16, 4096), (vec![0; 4096], OK));
    assert_eq!(read(&mut driver, 32, 4096), (vec![0; 4096], OK));
    assert_eq!(read(&mut driver, 24, 512), (vec![24; 512], OK));
    // Discarded and unmapped sectors; those that were only zeroed stay allocated.
    assert_eq!(room_of(file.as_file()), SECTORS * 512 - 2 * 4096);
}

fn queues_work_side_by_side(io: &str) {
    let file = image();
    let mut driver = driver(fields(&file, json!({"io": io, "queues": 4})));
    assert_eq!(driver.queue_maxima().count(), 4);
    assert_eq!(driver.config(34, 2), [4, 0]);
    driver.init(FEATURES | MQ);
    let header = header(IN, 9);
    for queue in 0..4 {
        let used = driver.queue(queue).request(&[Buf::Read(&header), Buf::Write(513)]);
        assert_eq!((used.bytes[0], used.bytes[512]), (9, OK));
    }
}

/// A stop waits for requests in flight, and all of them have been returned afterwards.
fn suspend_with_requests_in_flight_gives_all_back(io: &str) {
    let file = image();
    let mut driver = start(fields(&file, json!({"io": io, "cache": "writethrough"})));
    let header = header(OUT, 0);
    let data = [7; 4096];
    let mut queue = driver.queue(0);
    for _ in 0..32 {
        queue.add(&[Buf::Read(&header), Buf::Read(&data), Buf::Write(1)]);
    }
    queue.kick();
    driver.suspend();
    driver.resume();
    let mut queue = driver.queue(0);
    for _ in 0..32 {
        assert_eq!(status(&queue.poll_used()), OK);
    }
    assert_eq!(read(&mut driver, 0, 512), (vec![7; 512], OK));
}

/// After a reset, memory that the driver reuses isn't written.
fn reset_with_requests_in_flight_leaves_memory_alone(io: &str) {
    let file = image();
    let mut driver = start(fields(&file, json!({"io": io})));
    let header = header(IN, 1);
    for _ in 0..20 {
        let mut queue = driver.queue(0);
        for _ in 0..32 {
            queue.add(&[Buf::Read(&header), Buf::Write(4097)]);
        }
        queue.kick();
        driver.reset();
        assert!(!driver.needs_reset());
        driver.init(FEATURES);
    }
    assert_eq!(read(&mut driver, 4, 512), (vec![4; 512], OK));
}

/// A running disk that has just started to discard 64 MiB of cached data in 32 requests. No engine does that
/// synchronously, and each takes a while. The disk continues when the test says so.
fn start_with_requests_in_flight(io: &str) -> (Driver, Receiver<Call>, Sender<()>) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![0x5a; 64 << 20]).unwrap();
    let (mut driver, heard, go) = start_watched(fields(&file, json!({"io": io})));
    let header = header(WRITE_ZEROES, 0);
    let mut queue = driver.queue(0);
    for at in 0..32 {
        queue.add(&[Buf::Read(&header), Buf::Read(&segment(at * 4096, 4096, 1)), Buf::Write(1)]);
    }
    queue.kick();
    let started = heard.recv_timeout(DEADLINE).unwrap();
    assert!(started.in_flight > 0, "{started:?}");
    (driver, heard, go)
}

/// All requests complete before the reset does, and the next driver sees none of them.
fn reset_waits_for_what_is_in_flight(io: &str) {
    let (mut driver, heard, go) = start_with_requests_in_flight(io);
    driver.reset_while(|_| drop((heard, go)));
    assert_eq!(driver.control().counters().requests.get(), 32);
    driver.init(FEATURES);
    assert_eq!(read(&mut driver, 0, 512), (vec![0; 512], OK));
    let counters = driver.control().counters();
    assert_eq!((counters.requests.get(), counters.faults.get()), (33, 0));
}

/// The mode is switched with requests in flight: they are complete and on stable storage before the switch
/// is.
fn switch_to_write_through_waits_for_what_is_in_flight(io: &str) {
    let (driver, heard, go) = start_with_requests_in_flight(io);
    driver.write_config(32, &[0]);
    go.send(()).unwrap();
    let mut calls = std::iter::from_fn(|| heard.recv_timeout(DEADLINE).ok());
    let switched = calls.find(|call| call.is_config || go.send(()).is_err()).unwrap();
    assert_eq!((switched.done, switched.in_flight), (32, 0));
}

fn counters_tell_requests_bytes_and_errors(io: &str) {
    let file = image();
    let mut driver = start(fields(&file, json!({"io": io})));
    assert_eq!(read(&mut driver, 0, 1024).1, OK);
    assert_eq!(send(&mut driver, OUT, 0, &[1; 512]), OK);
    assert_eq!(read(&mut driver, SECTORS, 512).1, IOERR);
    let counters = driver.control().counters();
    assert_eq!(counters.requests.get(), 3);
    assert_eq!((counters.bytes_in.get(), counters.bytes_out.get()), (1024, 512));
    assert_eq!((counters.errors.get(), counters.faults.get()), (1, 0));
}

macro_rules! both_ways {
    ($($test:ident),* $(,)?) => {
        mod uring {
            $(#[test] fn $test() { super::$test("io_uring") })*
        }
        mod threads {
            $(#[test] fn $test() { super::$test("threads") })*
        }
    };
}

both_ways!(
    read_gives_the_sectors,
    write_is_in_the_file_and_read_back,
    header_and_data_in_many_pieces,
    many_requests_in_flight_all_come_back,
    discard_and_write_zeroes_give_up_room,
    queues_work_side_by_side,
    suspend_with_requests_in_flight_gives_all_back,
    reset_with_requests_in_flight_leaves_memory_alone,
    reset_waits_for_what_is_in_flight,
    switch_to_write_through_waits_for_what_is_in_flight,
    counters_tell_requests_bytes_and_errors,
);

fn serial_of(driver: &mut vmm_virtio::testing::Driver) -> Vec<u8> {
    let used = driver.queue(0).request(&[Buf::Read(&header(GET_ID, 0)), Buf::Write(20), Buf::Write(1)]);
    assert_eq!((status(&used), used.len), (OK, 21));
    used.bytes[..20].to_vec()
}

#[test]
fn serial_is_the_id_unless_it_is_given() {
    let file = image();
    let mut driver = start(fields(&file, json!({"read_only": true})));
    assert_eq!(serial_of(&mut driver), *b"disk0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let mut driver = start(fields(&file, json!({"read_only": true, "serial": "12345678901234567890"})));
    assert_eq!(serial_of(&mut driver), *b"12345678901234567890");
}

#[test]
fn read_only_disk_refuses_every_change() {
    let file = image();
    let mut driver = start(fields(&file, json!({"read_only": true})));
    // VIRTIO_BLK_F_RO.
    assert_ne!(driver.offered() & 1 << 5, 0);
    assert_eq!(send(&mut driver, OUT, 0, &[1; 512]), IOERR);
    // Not offered, so not supported.
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(0, 8, 0)), UNSUPP);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(0, 8, 0)), UNSUPP);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    assert_eq!(bytes_of(&file)[..512], [0; 512]);
}

#[test]
fn cache_is_what_the_config_says_and_the_driver_may_change_it() {
    let file = image();
    let mut driver = start(fields(&file, json!({"cache": "writethrough"})));
    assert_eq!(driver.config(32, 1), [0]);
    driver.write_config(32, &[1]);
    assert_eq!(driver.config(32, 1), [1]);
    assert_eq!(send(&mut driver, OUT, 0, &[9; 512]), OK);
    driver.write_config(32, &[0]);
    assert_eq!(send(&mut driver, OUT, 1, &[9; 512]), OK);
    drop(driver);
    let driver = start(fields(&file, json!({})));
    assert_eq!(driver.config(32, 1), [1]);
    assert_eq!(bytes_of(&file)[..1024], [9; 1024]);
}

#[test]
fn direct_disk_takes_aligned_and_unaligned_memory() {
    let file = image();
    let mut driver = start(fields(&file, json!({"direct": true})));
    assert_eq!(send(&mut driver, OUT, 8, &[0xcd; 4096]), OK);
    // The driver's buffer may start anywhere; one preceding byte makes its address odd.
    let header = header(IN, 8);
    let used = driver.queue(0).request(&[Buf::Read(&header), Buf::Write(1), Buf::Write(4095), Buf::Write(1)]);
    assert_eq!((&used.bytes[..4096], status(&used)), (&[0xcd; 4096][..], OK));
    assert_eq!(bytes_of(&file)[4096..8192], [0xcd; 4096]);
}

#[test]
fn note_says_the_way() {
    let file = image();
    let path = file.path().display();
    let note = |io| try_open(fields(&file, json!({"io": io, "read_only": true}))).unwrap().note().unwrap();
    assert_eq!(note("io_uring"), format!("{path}, raw, by io_uring"));
    assert_eq!(note("threads"), format!("{path}, raw, by threads"));
}

#[test]
fn queues_are_one_for_each_vcpu_unless_said() {
    let file = image();
    let open = |more| try_open(fields(&file, more)).unwrap().queue_sizes();
    assert_eq!(open(json!({"read_only": true})), [256; 4]);
    assert_eq!(open(json!({"read_only": true, "queues": 1})), [256]);
}

#[test]
fn topology_is_that_of_the_file() {
    let file = image();
    let driver = start(fields(&file, json!({})));
    // Logical blocks of 512; physical ones of the file system, which are 4096 on nearly all Linux file
    // systems.
    assert_eq!(driver.config(20, 4), 512_u32.to_le_bytes());
    let block = std::os::unix::fs::MetadataExt::blksize(&file.as_file().metadata().unwrap());
    assert_eq!(u64::from(driver.config(24, 1)[0]), u64::from((block / 512).ilog2()));
}
