//! A card connected to a passt: the test listens, and uses the stream's format.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use vmm_virtio::testing::{Buf, Driver};

use super::{
    F_MRG_RXBUF, HEADER, ONE_BUFFER, RECEIVEQ, TRANSMITQ, add, assert_refused, counted, errors, framed,
    try_open, wait,
};

fn at(path: &Path) -> Value {
    json!({"backend": {"passt": path}})
}

/// A running card and its peer.
fn connected(features: u64) -> (Driver, UnixStream) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("passt");
    let listener = UnixListener::bind(&path).unwrap();
    let mut driver = Driver::new(try_open(at(&path)).unwrap(), 1);
    driver.init(features);
    (driver, listener.accept().unwrap().0)
}

/// A frame in the stream's format.
fn packed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

fn take(mut peer: &UnixStream) -> Vec<u8> {
    let mut len = [0; 4];
    peer.read_exact(&mut len).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(len) as usize];
    peer.read_exact(&mut frame).unwrap();
    frame
}

fn transmit(driver: &mut Driver, frame: &[u8]) {
    driver.queue(TRANSMITQ).request(&[Buf::Read(&framed(frame))]);
}

/// The card's log message.
fn told(driver: &Driver) -> Vec<String> {
    driver.control().take_notices().texts
}

#[track_caller]
fn assert_link_goes_down(driver: &mut Driver, because: &str) {
    driver.wait_config_change();
    assert_eq!(driver.config(6, 2), [0, 0]);
    assert_eq!(told(driver), [because]);
    // The driver continues to work.
    transmit(driver, &counted(60));
    assert_eq!(errors(driver), 1);
}

#[test]
fn stream_carries_frames_both_ways_without_their_headers() {
    let (mut driver, mut peer) = connected(0);
    transmit(&mut driver, &counted(1514));
    transmit(&mut driver, &counted(60));
    assert_eq!((take(&peer), take(&peer)), (counted(1514), counted(60)));
    add(&mut driver, &[Buf::Write(1526)]);
    peer.write_all(&packed(&counted(1514))).unwrap();
    assert_eq!(wait(&mut driver).written(), [&ONE_BUFFER[..], &counted(1514)].concat());
    assert_eq!(driver.offered() & (1 | 1 << 1), 0, "nobody computes checksums behind it");
}

#[test]
fn stream_carries_a_frame_of_the_greatest_length_both_ways() {
    let (mut driver, mut peer) = connected(0);
    // The longest IP packet, an Ethernet header and two VLAN tags.
    let frame = counted(65_535 + 14 + 8);
    transmit(&mut driver, &frame);
    assert!(take(&peer) == frame);
    add(&mut driver, &[Buf::Write(65_535 + 14 + 8 + 12)]);
    peer.write_all(&packed(&frame)).unwrap();
    assert!(wait(&mut driver).written()[12..] == frame);
}

#[test]
fn stream_that_brings_frames_byte_by_byte_brings_them_whole() {
    let (mut driver, mut peer) = connected(0);
    let bytes = [packed(&counted(60)), packed(&counted(61))].concat();
    (0..2).for_each(|_| _ = driver.queue(RECEIVEQ).add(&[Buf::Write(100)]));
    driver.queue(RECEIVEQ).kick();
    bytes.chunks(1).for_each(|byte| peer.write_all(byte).unwrap());
    assert_eq!(wait(&mut driver).written()[12..], counted(60));
    assert_eq!(wait(&mut driver).written()[12..], counted(61));
}

#[test]
fn stream_cut_at_any_byte_brings_frames_whole() {
    let (mut driver, mut peer) = connected(0);
    let bytes = [packed(&counted(20)), packed(&counted(21))].concat();
    for cut in 1..bytes.len() {
        (0..2).for_each(|_| _ = driver.queue(RECEIVEQ).add(&[Buf::Write(100)]));
        driver.queue(RECEIVEQ).kick();
        peer.write_all(&bytes[..cut]).unwrap();
        // The first part has been read by then, because the card's thread handles one event after the other.
        transmit(&mut driver, &counted(60));
        peer.write_all(&bytes[cut..]).unwrap();
        assert_eq!(wait(&mut driver).written()[12..], counted(20));
        assert_eq!(wait(&mut driver).written()[12..], counted(21));
    }
}

#[test]
fn stream_with_many_frames_at_once_brings_each() {
    let (mut driver, mut peer) = connected(0);
    let bytes: Vec<u8> = (14..114).flat_map(|len| packed(&counted(len))).collect();
    peer.write_all(&bytes).unwrap();
    (0..100).for_each(|_| _ = driver.queue(RECEIVEQ).add(&[Buf::Write(200)]));
    driver.queue(RECEIVEQ).kick();
    (14..114).for_each(|len| assert_eq!(wait(&mut driver).written()[12..], counted(len)));
}

#[test]
fn stream_with_frames_that_are_too_short_goes_on_behind_them() {
    let (mut driver, mut peer) = connected(F_MRG_RXBUF);
    add(&mut driver, &[Buf::Write(100)]);
    // More than the card drops in one turn.
    let bytes: Vec<u8> = (0..100).flat_map(|_| packed(&[1; 13])).chain(packed(&counted(14))).collect();
    peer.write_all(&bytes).unwrap();
    assert_eq!(wait(&mut driver).written()[12..], counted(14));
    assert_eq!(errors(&driver), 100);
}

#[test]
fn stream_without_a_reader_drops_frames_and_ends_none_in_the_middle() {
    let (mut driver, peer) = connected(0);
    // An odd length, so that the socket's buffer isn't a multiple of it.
    while errors(&driver) == 0 {
        transmit(&mut driver, &counted(9001));
    }
    let sent = driver.control().counters().requests.get() - 1;
    // Nothing else is sent: the rest of the last frame follows on its own.
    (0..sent).for_each(|_| assert!(take(&peer) == counted(9001)));
    transmit(&mut driver, b"the first one behind");
    assert_eq!(take(&peer), b"the first one behind");
}

#[test]
fn stream_without_buffers_stays_in_the_host_and_works_again() {
    let (mut driver, mut peer) = connected(0);
    peer.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let full = loop {
        // Such a short write is accepted entirely or not at all.
        match peer.write(&packed(&counted(60))) {
            Ok(len) => sent += len / 64,
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(full, ErrorKind::WouldBlock);
    for _ in 0..sent {
        add(&mut driver, &[Buf::Write(100)]);
        assert_eq!(wait(&mut driver).written()[12..], counted(60));
    }
}

#[test]
fn stream_that_ends_takes_the_link_down() {
    let (mut driver, peer) = connected(0);
    add(&mut driver, &[Buf::Write(100)]);
    drop(peer);
    assert_link_goes_down(&mut driver, "its peer has closed the socket: its link is down");
}

#[test]
fn stream_that_ends_inside_a_frame_takes_the_link_down() {
    let (mut driver, mut peer) = connected(0);
    add(&mut driver, &[Buf::Write(100)]);
    peer.write_all(&packed(&counted(60))[..30]).unwrap();
    drop(peer);
    assert_link_goes_down(&mut driver, "its peer has closed the socket: its link is down");
}

#[test]
fn stream_with_an_impossible_length_takes_the_link_down_behind_the_frames_before_it() {
    let (mut driver, mut peer) = connected(0);
    (0..2).for_each(|_| _ = driver.queue(RECEIVEQ).add(&[Buf::Write(100)]));
    driver.queue(RECEIVEQ).kick();
    peer.write_all(&[packed(&counted(60)), 0_u32.to_be_bytes().to_vec()].concat()).unwrap();
    assert_eq!(wait(&mut driver).written()[12..], counted(60));
    assert_link_goes_down(&mut driver, "a frame of 0 bytes arrived, which is invalid: its link is down");
}

#[test]
fn stream_with_a_length_of_one_byte_too_much_takes_the_link_down() {
    let (mut driver, mut peer) = connected(0);
    add(&mut driver, &[Buf::Write(100)]);
    peer.write_all(&65_558_u32.to_be_bytes()).unwrap();
    assert_link_goes_down(&mut driver, "a frame of 65558 bytes arrived, which is invalid: its link is down");
}

#[test]
fn stream_goes_on_behind_a_reset_of_the_card() {
    let (mut driver, mut peer) = connected(0);
    peer.write_all(&packed(&counted(60))[..30]).unwrap();
    add(&mut driver, &[Buf::Write(100)]);
    driver.init(0);
    peer.write_all(&packed(&counted(60))[30..]).unwrap();
    add(&mut driver, &[Buf::Write(100)]);
    assert_eq!(wait(&mut driver).written(), [&ONE_BUFFER[..], &counted(60)].concat());
}

#[test]
fn config_with_a_passt_that_is_not_there_says_what_starts_one() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("passt");
    let name = path.display();
    let says = |problem: String| format!(".backend.passt: {problem}");
    assert_refused(
        at(&path),
        &says(format!("there is no {name}: `passt --socket {name}` creates it and listens there")),
    );
    drop(UnixListener::bind(&path).unwrap());
    assert_refused(
        at(&path),
        &says(format!(
            "nothing listens at {name} any more: `rm {name}; passt --socket {name}` starts a new passt"
        )),
    );
    std::fs::remove_file(&path).unwrap();
    File::create(&path).unwrap();
    assert_refused(at(&path), &says(format!("{name} isn't a socket; use that of a `passt --socket PATH`")));
    std::fs::remove_file(&path).unwrap();
    let _datagram = UnixDatagram::bind(&path).unwrap();
    assert_refused(
        at(&path),
        &says(format!("{name} isn't a stream socket; use that of a `passt --socket PATH`")),
    );
}

#[test]
fn config_with_a_passt_that_is_busy_does_not_wait_for_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("passt");
    let listener = UnixListener::bind(&path).unwrap();
    // Nothing accepts, and the backlog is one.
    rustix::net::listen(&listener, 0).unwrap();
    let _first = try_open(at(&path)).unwrap();
    let expected = format!(
        ".backend.passt: the passt at {} serves another machine: start another one at a different path",
        path.display()
    );
    assert_eq!(try_open(at(&path)).err(), Some(expected));
}

#[test]
fn config_with_a_path_that_no_socket_has_is_refused() {
    let path = format!("/{}", "p".repeat(107));
    let refused =
        format!(".backend.passt: {path}: a path of 108 bytes is too long for a socket, at most 107");
    assert_refused(json!({"backend": {"passt": path}}), &refused);
    assert_refused(
        json!({"backend": {"passt": "/p"}, "queues": 2}),
        ".queues: passt has a single queue pair, remove \"queues\"",
    );
}

#[test]
fn header_of_the_guest_goes_no_further() {
    let (mut driver, peer) = connected(0);
    // NEEDS_CSUM and an offload type, which weren't offered.
    let header = [&[1, 1][..], &HEADER[2..]].concat();
    driver.queue(TRANSMITQ).request(&[Buf::Read(&[&header, &counted(60)[..]].concat())]);
    assert_eq!(take(&peer), counted(60));
}

/// A broadcast DHCPDISCOVER (RFC 2131 §2, RFC 2132 §9.6) from a card with this address.
fn discover(mac: [u8; 6]) -> Vec<u8> {
    let mut bootp = vec![0; 236];
    // A request over Ethernet with an id, to be answered by broadcast.
    bootp[..8].copy_from_slice(&[1, 1, 6, 0, 0x76, 0x6d, 0x6d, 1]);
    bootp[10] = 0x80;
    bootp[28..34].copy_from_slice(&mac);
    // The magic cookie, the message type, the end, and the rest of BOOTP's 300 bytes.
    bootp.extend_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    bootp.resize(300, 0);
    // UDP without a checksum.
    let udp = [&[0, 68, 0, 67, 0x01, 0x34, 0, 0], &bootp[..]].concat();
    let mut ip = [69, 0, 0x01, 0x48, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    ip[10..12].copy_from_slice(&(!(sum + (sum >> 16)) as u16).to_be_bytes());
    [&[0xff; 6], &mac[..], &[8, 0], &ip, &udp].concat()
}

#[test]
#[ignore = "needs a passt, whose socket VMM_PASST names"]
fn passt_offers_an_address() {
    let path = std::env::var("VMM_PASST").unwrap();
    let mut driver = Driver::new(try_open(at(path.as_ref())).unwrap(), 1);
    driver.init(0);
    (0..16).for_each(|_| _ = driver.queue(RECEIVEQ).add(&[Buf::Write(2000)]));
    driver.queue(RECEIVEQ).kick();
    let mac = driver.config(0, 6).try_into().unwrap();
    transmit(&mut driver, &discover(mac));
    // From UDP port 67 to 68, with DHCPOFFER among its options.
    let is_offer = |frame: &Vec<u8>| {
        let ports = frame.get(12..14) == Some(&[8, 0]) && frame.get(34..38) == Some(&[0, 67, 0, 68]);
        ports && frame[42..].windows(3).any(|option| option == [53, 1, 2])
    };
    let offer = (0..16).map(|_| wait(&mut driver).written()[12..].to_vec()).find(is_offer).unwrap();
    println!("offered: {}.{}.{}.{}", offer[58], offer[59], offer[60], offer[61]);
    assert_eq!(offer[70..76], mac);
}
