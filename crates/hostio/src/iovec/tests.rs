//! Guest memory and stream sockets.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use vmm_memory::vm_memory::Bytes;

use super::*;
use crate::GuestRanges;

const RAM_LEN: u64 = 1 << 20;

/// RAM in two regions that meet at 0x8000, with the pieces placed from 0x7ffe on, last piece first.
struct Layout {
    ram: GuestRam,
    ranges: Vec<GuestRange>,
}

impl Layout {
    fn new(pieces: &[&[u8]]) -> Self {
        let ram = GuestRam::new(&[0..0x8000, 0x8000..RAM_LEN]).unwrap();
        let mut gpa = 0x7ffe;
        let mut ranges: Vec<_> = pieces
            .iter()
            .rev()
            .map(|piece| {
                ram.memory().write_slice(piece, GuestAddress(gpa)).unwrap();
                let range = GuestRange { gpa, len: piece.len() as u64 };
                gpa += range.len;
                range
            })
            .collect();
        ranges.reverse();
        Self { ram, ranges }
    }

    fn slices(&self) -> IoSlices {
        let mut slices = IoSlices::with_capacity(4);
        slices.fill(&GuestRanges::new(&self.ram, &self.ranges)).unwrap();
        slices
    }

    fn bytes(&self) -> Vec<u8> {
        let read = |range: &GuestRange| {
            let mut bytes = vec![0; range.len as usize];
            self.ram.memory().read_slice(&mut bytes, GuestAddress(range.gpa)).unwrap();
            bytes
        };
        self.ranges.iter().flat_map(read).collect()
    }
}

#[test]
fn stream_takes_the_pieces_in_their_order() {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    let layout = Layout::new(&[b"one ", b"and ", b"another"]);
    let mut slices = layout.slices();
    assert_eq!(slices.send_to(&socket).unwrap(), 15);
    assert!(slices.is_empty());
    let mut received = [0; 15];
    peer.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"one and another");
}

#[test]
fn stream_that_is_full_takes_a_part_and_then_the_rest() {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    // More than the socket buffers hold, in two pieces.
    let (first, second) = (vec![1; 400_000], vec![2; 400_000]);
    let layout = Layout::new(&[&first, &second]);
    let mut slices = layout.slices();
    let mut sent = 0;
    let error = loop {
        match slices.send_to(&socket) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(slices.len(), 800_000 - sent);
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; 800_000];
        peer.read_exact(&mut received).unwrap();
        received
    });
    while !slices.is_empty() {
        let sent = slices.send_to(&socket);
        assert!(sent.is_ok() || sent.unwrap_err().kind() == ErrorKind::WouldBlock);
        std::thread::yield_now();
    }
    assert_eq!(reader.join().unwrap(), [first, second].concat());
}

#[test]
fn stream_whose_other_end_is_gone_is_an_error_and_no_signal() {
    let (peer, socket) = UnixStream::pair().unwrap();
    drop(peer);
    let layout = Layout::new(&[b"x"]);
    let mut slices = layout.slices();
    assert_eq!(slices.send_to(&socket).unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(slices.len(), 1);
}

#[test]
fn stream_fills_the_pieces_in_their_order_and_no_more_than_these() {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    let layout = Layout::new(&[&[0; 3], &[0; 1], &[0; 6]]);
    let mut slices = layout.slices();
    assert_eq!(slices.receive_from(&socket).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.write_all(b"12345").unwrap();
    assert_eq!(slices.receive_from(&socket).unwrap(), 5);
    assert_eq!(slices.len(), 5);
    peer.write_all(b"67890 and more").unwrap();
    assert_eq!(slices.receive_from(&socket).unwrap(), 5);
    assert_eq!(layout.bytes(), b"1234567890");
}

#[test]
fn stream_at_its_end_gives_nothing() {
    let (peer, socket) = UnixStream::pair().unwrap();
    drop(peer);
    let layout = Layout::new(&[&[0; 3]]);
    let mut slices = layout.slices();
    assert_eq!(slices.receive_from(&socket).unwrap(), 0);
}

#[test]
fn range_beyond_ram_is_refused_and_the_list_is_empty() {
    let layout = Layout::new(&[b"one "]);
    let mut slices = layout.slices();
    let ranges = [GuestRange { gpa: 0, len: 4 }, GuestRange { gpa: RAM_LEN - 2, len: 4 }];
    let error = slices.fill(&GuestRanges::new(&layout.ram, &ranges)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!((slices.len(), slices.raw().1), (0, 0));
}

#[test]
fn list_of_1024_pieces_is_taken_and_one_more_is_refused() {
    let layout = Layout::new(&[]);
    let ranges = vec![GuestRange { gpa: 0x1000, len: 1 }; 1025];
    let mut slices = IoSlices::with_capacity(4);
    slices.fill(&GuestRanges::new(&layout.ram, &ranges[..1024])).unwrap();
    assert_eq!((slices.len(), slices.raw().1), (1024, 1024));
    let error = slices.fill(&GuestRanges::new(&layout.ram, &ranges)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(slices.is_empty());
}
