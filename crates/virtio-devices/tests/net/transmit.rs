//! Frames from the guest, and what applies to both directions.

use serde_json::json;
use vmm_virtio::testing::Buf;

use super::{
    HEADER, RECEIVEQ, TRANSMITQ, add, counted, errors, framed, fresh_with, running, send, take, wait,
};

#[test]
fn frame_sent_arrives_as_it_was() {
    let (mut driver, peer) = running(0);
    let frame = framed(&counted(1514));
    assert_eq!(driver.queue(TRANSMITQ).request(&[Buf::Read(&frame)]).len, 0);
    assert_eq!(take(&peer), frame);
    let counters = driver.control().counters();
    assert_eq!((counters.requests.get(), counters.bytes_out.get()), (1, 1514));
}

#[test]
fn frame_sent_with_its_header_in_several_descriptors_arrives_whole() {
    let (mut driver, peer) = running(0);
    let frame = framed(&counted(60));
    let bufs = [&frame[..5], &[], &frame[5..11], &frame[11..14], &frame[14..]].map(Buf::Read);
    driver.queue(TRANSMITQ).request(&bufs);
    assert_eq!(take(&peer), frame);
}

#[test]
fn frame_sent_of_the_greatest_length_arrives_whole() {
    let (mut driver, peer) = running(0);
    let frame = framed(&counted(65_535 + 14));
    driver.queue(TRANSMITQ).request(&[Buf::Read(&frame)]);
    assert!(take(&peer) == frame);
}

#[test]
fn frame_sent_of_an_impossible_length_is_dropped_and_the_next_goes() {
    let (mut driver, peer) = running(0);
    let long = counted(70_000);
    driver.queue(TRANSMITQ).request(&[Buf::Read(&[])]);
    driver.queue(TRANSMITQ).request(&[Buf::Read(&HEADER[..7])]);
    driver.queue(TRANSMITQ).request(&[Buf::Read(&long[..25])]);
    driver.queue(TRANSMITQ).request(&[Buf::Read(&long)]);
    driver.queue(TRANSMITQ).request(&[Buf::Write(100)]);
    assert_eq!(errors(&driver), 5);
    driver.queue(TRANSMITQ).request(&[Buf::Read(&framed(&counted(60)))]);
    assert_eq!(take(&peer), framed(&counted(60)));
}

#[test]
fn flood_sent_to_a_peer_that_does_not_read_is_dropped_and_the_link_works_again() {
    let (mut driver, peer) = running(0);
    let frame = framed(&counted(60));
    while errors(&driver) == 0 {
        driver.queue(TRANSMITQ).request(&[Buf::Read(&frame)]);
    }
    let gone = driver.control().counters().requests.get() - 1;
    (0..gone).for_each(|_| assert_eq!(take(&peer), frame));
    driver.queue(TRANSMITQ).request(&[Buf::Read(&framed(b"the first one behind"))]);
    assert_eq!(take(&peer), framed(b"the first one behind"));
}

#[test]
fn limits_hold_frames_back_and_let_them_go_later() {
    let (mut driver, peer) =
        fresh_with(json!({"limits": {"operations_per_second": 200, "operations_burst": 1}}));
    driver.init(0);
    let start = std::time::Instant::now();
    (0..6).for_each(|_| _ = driver.queue(TRANSMITQ).add(&[Buf::Read(&framed(&counted(60)))]));
    driver.queue(TRANSMITQ).kick();
    (0..6).for_each(|_| assert_eq!(take(&peer), framed(&counted(60))));
    (0..6).for_each(|_| send(&peer, &counted(70)));
    (0..6).for_each(|_| _ = driver.queue(RECEIVEQ).add(&[Buf::Write(100)]));
    driver.queue(RECEIVEQ).kick();
    (0..6).for_each(|_| assert_eq!(wait(&mut driver).written()[12..], counted(70)));
    // 12 frames with a burst of one: 11 times 5 ms.
    assert!(start.elapsed().as_millis() >= 55, "{:?}", start.elapsed());
}

#[test]
fn peer_that_goes_takes_the_link_down_and_stops_no_driver() {
    let (mut driver, peer) = running(0);
    add(&mut driver, &[Buf::Write(100)]);
    drop(peer);
    driver.wait_config_change();
    assert_eq!(driver.config(6, 2), [0, 0]);
    driver.queue(TRANSMITQ).request(&[Buf::Read(&framed(&counted(60)))]);
    assert_eq!(errors(&driver), 1);
    driver.init(0);
    driver.queue(TRANSMITQ).request(&[Buf::Read(&framed(&counted(60)))]);
}
