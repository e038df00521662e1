//! Guest memory and a stream socket.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use crate::testing::LooseChain;
use crate::{Buffers, IoSlices};

fn slices(buffers: &Buffers<'_>) -> IoSlices {
    let mut slices = IoSlices::with_capacity(4);
    slices.fill(buffers).unwrap();
    slices
}

fn bytes(buffers: &Buffers<'_>) -> Vec<u8> {
    let mut bytes = vec![0; buffers.len() as usize];
    buffers.read(&mut bytes).unwrap();
    bytes
}

#[test]
fn stream_takes_the_pieces_in_their_order() {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    let chain = LooseChain::new(&[b"one ", b"and ", b"another"], &[]);
    let mut slices = slices(&chain.chain().readable());
    assert_eq!(slices.send_to(&socket).unwrap(), 15);
    assert!(slices.is_empty());
    let mut received = [0; 15];
    peer.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"one and another");
}

#[test]
fn stream_that_is_full_takes_a_part_and_then_the_rest() {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    // More than the socket holds, in two pieces.
    let (first, second) = (vec![1; 400_000], vec![2; 400_000]);
    let chain = LooseChain::new(&[&first, &second], &[]);
    let mut slices = slices(&chain.chain().readable());
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
    let chain = LooseChain::new(&[b"x"], &[]);
    let mut slices = slices(&chain.chain().readable());
    assert_eq!(slices.send_to(&socket).unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(slices.len(), 1);
}

#[test]
fn stream_fills_the_pieces_in_their_order_and_no_more_than_these() {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    let chain = LooseChain::new(&[], &[3, 1, 6]);
    let room = chain.chain().writable();
    let mut slices = slices(&room);
    assert_eq!(slices.receive_from(&socket).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.write_all(b"12345").unwrap();
    assert_eq!(slices.receive_from(&socket).unwrap(), 5);
    assert_eq!(slices.len(), 5);
    peer.write_all(b"67890 and more").unwrap();
    assert_eq!(slices.receive_from(&socket).unwrap(), 5);
    assert_eq!(bytes(&room), b"1234567890");
}

#[test]
fn stream_at_its_end_gives_nothing() {
    let (peer, socket) = UnixStream::pair().unwrap();
    drop(peer);
    let chain = LooseChain::new(&[], &[3]);
    let mut slices = slices(&chain.chain().writable());
    assert_eq!(slices.receive_from(&socket).unwrap(), 0);
}
