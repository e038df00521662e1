//! Frames to the guest.

use std::io::{ErrorKind, Write};

use vmm_virtio::testing::{Buf, Used, features};

use super::{F_MRG_RXBUF, HEADER, ONE_BUFFER, RECEIVEQ, add, counted, errors, framed, running, send, wait};

#[test]
fn frame_received_arrives_as_it_was() {
    let (mut driver, peer) = running(0);
    add(&mut driver, &[Buf::Write(1526)]);
    send(&peer, &counted(1514));
    let used = wait(&mut driver);
    assert_eq!(used.written(), [&ONE_BUFFER[..], &counted(1514)].concat());
    let counters = driver.control().counters();
    assert_eq!((counters.requests.get(), counters.bytes_in.get()), (1, 1514));
}

#[test]
fn frame_received_into_a_header_of_several_descriptors_arrives_whole() {
    let (mut driver, peer) = running(0);
    add(&mut driver, &[Buf::Write(3), Buf::Write(8), Buf::Write(1), Buf::Write(100)]);
    send(&peer, &counted(60));
    assert_eq!(wait(&mut driver).written(), [&ONE_BUFFER[..], &counted(60)].concat());
}

#[test]
fn frame_received_is_merged_of_as_many_chains_as_it_takes() {
    let (mut driver, peer) = running(F_MRG_RXBUF);
    let frame = counted(65_535 + 14);
    // 12 bytes of header and the frame: 21 chains of 3000 bytes, and one of 2561; the number spans two
    // descriptors.
    (0..22).for_each(|_| _ = driver.queue(RECEIVEQ).add(&[Buf::Write(11), Buf::Write(2989)]));
    driver.queue(RECEIVEQ).kick();
    send(&peer, &frame);
    let used: Vec<Used> = (0..22).map(|_| wait(&mut driver)).collect();
    assert!(used[..21].iter().all(|used| used.len == 3000));
    let bytes: Vec<u8> = used.iter().flat_map(|used| used.written().to_vec()).collect();
    assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 22, 0]);
    assert!(bytes[12..] == frame);
}

#[test]
fn frames_received_one_behind_the_other_keep_their_order() {
    let (mut driver, peer) = running(F_MRG_RXBUF);
    [1, 2, 3].iter().for_each(|n| send(&peer, &[*n; 150]));
    send(&peer, &[4; 50]);
    (0..7).for_each(|_| _ = driver.queue(RECEIVEQ).add(&[Buf::Write(100)]));
    driver.queue(RECEIVEQ).kick();
    let used: Vec<Used> = (0..7).map(|_| wait(&mut driver)).collect();
    let ends: Vec<(u32, u8)> = used.iter().map(|used| (used.len, *used.written().last().unwrap())).collect();
    assert_eq!(ends, [(100, 1), (62, 1), (100, 2), (62, 2), (100, 3), (62, 3), (62, 4)]);
}

#[test]
fn frame_received_that_waits_for_more_chains_goes_on_with_them() {
    let (mut driver, peer) = running(F_MRG_RXBUF);
    add(&mut driver, &[Buf::Write(100)]);
    send(&peer, &counted(200));
    driver.suspend();
    driver.resume();
    // The abandoned chain is empty, and the frame starts again.
    let first = driver.queue(RECEIVEQ).try_used().map(|used| used.len);
    assert!(matches!(first, Some(0) | None), "{first:?}");
    (0..3).for_each(|_| add(&mut driver, &[Buf::Write(100)]));
    let mut bytes = Vec::new();
    while bytes.len() < 212 {
        bytes.extend_from_slice(wait(&mut driver).written());
    }
    assert_eq!(bytes[12..], counted(200));
    assert_eq!(bytes[10..12], [3, 0]);
}

#[test]
fn frame_received_longer_than_its_chain_is_dropped_and_the_chain_takes_the_next() {
    let (mut driver, peer) = running(0);
    add(&mut driver, &[Buf::Write(100)]);
    send(&peer, &counted(89));
    send(&peer, &counted(88));
    assert_eq!(wait(&mut driver).written()[12..], counted(88));
    assert_eq!(errors(&driver), 1);
}

#[test]
fn frame_received_longer_than_all_of_the_queue_is_dropped_and_the_link_works_again() {
    let (mut driver, peer) = running(F_MRG_RXBUF);
    (0..256).for_each(|_| _ = driver.queue(RECEIVEQ).add(&[Buf::Write(26)]));
    driver.queue(RECEIVEQ).kick();
    send(&peer, &counted(10_000));
    (0..256).for_each(|_| assert_eq!(wait(&mut driver).len, 0));
    add(&mut driver, &[Buf::Write(100)]);
    send(&peer, &counted(60));
    assert_eq!(wait(&mut driver).written()[12..], counted(60));
}

#[test]
fn chains_that_take_no_frame_come_back_empty() {
    let (mut driver, peer) = running(F_MRG_RXBUF);
    assert_eq!(driver.queue(RECEIVEQ).request(&[Buf::Write(11)]).len, 0);
    assert_eq!(driver.queue(RECEIVEQ).request(&[Buf::Read(b"not for it"), Buf::Write(0)]).len, 0);
    add(&mut driver, &[Buf::Write(100)]);
    send(&peer, &counted(60));
    assert_eq!(wait(&mut driver).written()[12..], counted(60));
}

#[test]
fn frame_received_that_needs_what_the_driver_did_not_take_is_dropped() {
    let (mut driver, mut peer) = running(0);
    add(&mut driver, &[Buf::Write(100)]);
    // NEEDS_CSUM; a TCP segment over IPv4 to be split; a header without data.
    peer.write_all(&[&[1][..], &[0; 71]].concat()).unwrap();
    peer.write_all(&[&[0, 1][..], &[0; 70]].concat()).unwrap();
    peer.write_all(&HEADER).unwrap();
    // DATA_VALID is accepted, but not passed on.
    peer.write_all(&[&[2][..], &[0; 71]].concat()).unwrap();
    assert_eq!(wait(&mut driver).written(), [&ONE_BUFFER[..], &[0; 60]].concat());
    assert_eq!(errors(&driver), 3);
}

#[test]
fn flood_received_without_buffers_stays_in_the_host_and_the_link_works_again() {
    let (mut driver, peer) = running(F_MRG_RXBUF);
    let flags = rustix::fs::fcntl_getfl(&peer).unwrap();
    rustix::fs::fcntl_setfl(&peer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    let frame = framed(&counted(60));
    let mut sent = 0;
    let full = loop {
        match (&peer).write(&frame) {
            Ok(len) => sent += len / frame.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    for _ in 0..sent {
        add(&mut driver, &[Buf::Write(100)]);
        assert_eq!(wait(&mut driver).written()[12..], counted(60));
    }
    add(&mut driver, &[Buf::Write(100)]);
    send(&peer, b"the first one behind");
    assert_eq!(&wait(&mut driver).written()[12..], b"the first one behind");
}

/// The producer never waits for the driver, and the driver has at most two buffers: the device runs out of
/// buffers and of frames again and again, each time while the other side is active.
fn flood_received_while_buffers_come_one_by_one_arrives_whole(features: u64) {
    const FRAMES: u32 = 20_000;
    let (mut driver, peer) = running(features);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..FRAMES).for_each(|number| send(&peer, &number.to_le_bytes().repeat(15))));
        add(&mut driver, &[Buf::Write(72)]);
        for number in 0..FRAMES {
            add(&mut driver, &[Buf::Write(72)]);
            assert_eq!(wait(&mut driver).written()[12..16], number.to_le_bytes());
        }
    });
}

#[test]
fn flood_received_with_a_concurrent_producer_arrives_whole() {
    flood_received_while_buffers_come_one_by_one_arrives_whole(F_MRG_RXBUF);
}

#[test]
fn flood_received_with_a_concurrent_producer_and_event_idx_arrives_whole() {
    flood_received_while_buffers_come_one_by_one_arrives_whole(F_MRG_RXBUF | features::EVENT_IDX);
}

#[test]
fn reset_with_a_frame_half_delivered_loses_no_later_one() {
    let (mut driver, peer) = running(F_MRG_RXBUF);
    add(&mut driver, &[Buf::Write(100)]);
    send(&peer, &counted(200));
    send(&peer, &counted(60));
    driver.init(0);
    add(&mut driver, &[Buf::Write(1526)]);
    assert_eq!(wait(&mut driver).written()[12..], counted(200));
    add(&mut driver, &[Buf::Write(1526)]);
    assert_eq!(wait(&mut driver).written()[12..], counted(60));
}
