//! Large transfers and many connections.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use proptest::prelude::*;
use rustix::process::{Resource, getrlimit, setrlimit};
use vmm_virtio::testing::Random;
use vmm_virtio_devices::vsock::packet::{Op, SHUT_BOTH, SHUT_SEND};

use super::guest::{BUF_ALLOC, Flow, Guest};
use super::{GUEST_PORT, HOST_PORT, client, from_guest, line, listener, read, running};

/// 64-bit FNV-1a over words, to compare input and output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sum(u64);

impl Sum {
    const NEW: Self = Self(0xcbf2_9ce4_8422_2325);

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Writes `len` bytes in pieces of at most `most`, then shuts down. Returns their checksum.
fn write_on(mut socket: UnixStream, len: u64, most: u64, seed: u64) -> JoinHandle<Sum> {
    std::thread::spawn(move || {
        let (mut random, mut sum, mut left) = (Random::new(seed), Sum::NEW, len);
        while left > 0 {
            let count = (1 + random.below(most)).min(left);
            let first = random.bits() as u8;
            let piece: Vec<_> = (0..count).map(|i| first.wrapping_add(i as u8)).collect();
            sum.add(&piece);
            socket.write_all(&piece).unwrap();
            left -= count;
        }
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        sum
    })
}

/// Reads to the end in pieces of at most `most`. Returns the length and checksum.
fn read_on(mut socket: UnixStream, most: u64, seed: u64) -> JoinHandle<(u64, Sum)> {
    std::thread::spawn(move || {
        let (mut random, mut sum, mut len) = (Random::new(seed), Sum::NEW, 0);
        loop {
            let mut piece = vec![0; 1 + random.below(most) as usize];
            let count = socket.read(&mut piece).unwrap();
            if count == 0 {
                return (len, sum);
            }
            sum.add(&piece[..count]);
            len += count as u64;
        }
    })
}

/// How a guest program reads and writes.
#[derive(Clone, Copy, Debug)]
struct Program {
    seed: u64,
    /// Bytes to send.
    len: u64,
    /// Maximum packet length.
    most: u64,
}

/// What was received and sent.
struct Outcome {
    received: (u64, Sum),
    sent: Sum,
}

/// Sends and receives until both directions are closed.
fn converse(guest: &mut Guest, flow: &mut Flow, program: Program) -> Outcome {
    let mut random = Random::new(program.seed);
    let (mut left, mut sent, mut received) = (program.len, Sum::NEW, (0, Sum::NEW));
    let (mut has_ended, mut has_heard, mut is_asking) = (false, false, false);
    while !has_ended || !has_heard {
        if left > 0 && flow.room() > 0 {
            let count = (1 + random.below(program.most)).min(left).min(flow.room().into());
            let first = random.bits() as u8;
            let piece: Vec<_> = (0..count).map(|i| first.wrapping_add(i as u8)).collect();
            sent.add(&piece);
            guest.send_data(flow, &piece);
            left -= count;
            is_asking = false;
        } else if left > 0 && !is_asking {
            guest.send_op(flow, Op::CreditRequest);
            is_asking = true;
        } else if left == 0 && !has_ended {
            guest.send_shutdown(flow, SHUT_SEND);
            has_ended = true;
        }
        let must_wait = has_ended || left > 0 && flow.room() == 0;
        let packet = if must_wait && !has_heard { Some(guest.packet()) } else { guest.try_packet() };
        let Some((header, data)) = packet else { continue };
        assert!(flow.is_of(&header), "{header:?}");
        flow.learn(&header);
        received.0 += data.len() as u64;
        received.1.add(&data);
        // Occasionally its program reads the received data.
        if flow.received.wrapping_sub(flow.forwarded) * 2 > flow.buf_alloc || random.below(8) == 0 {
            flow.forwarded = flow.received;
            guest.send_op(flow, Op::CreditUpdate);
        }
        match header.op {
            op if op == Op::Shutdown as u16 => has_heard = true,
            op if op == Op::CreditRequest as u16 => {
                flow.forwarded = flow.received;
                guest.send_op(flow, Op::CreditUpdate);
            }
            op => assert!(op == Op::Rw as u16 || op == Op::CreditUpdate as u16, "{header:?}"),
        }
    }
    Outcome { received, sent }
}

fn both_ways(len: u64, host_most: u64, buf_alloc: u32, program: Program) {
    let (mut guest, directory) = running();
    guest.buf_alloc = buf_alloc;
    let (mut flow, socket) = from_guest(&mut guest, &directory);
    let reader = read_on(socket.try_clone().unwrap(), host_most, program.seed ^ 1);
    let writer = write_on(socket, len, host_most, program.seed ^ 2);
    let outcome = converse(&mut guest, &mut flow, program);
    assert_eq!(outcome.received, (len, writer.join().unwrap()));
    assert_eq!(reader.join().unwrap(), (program.len, outcome.sent));
    guest.send_shutdown(&flow, SHUT_BOTH);
    while guest.packet().0.op != Op::Rst as u16 {}
    assert_eq!(guest.driver.control().counters().errors.get(), 0);
}

proptest! {
    // Up to two mebibytes each.
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn data_in_pieces_of_any_length_both_ways_at_once_arrives_as_it_was(
        seed in any::<u64>(),
        most in prop::sample::select(vec![50, 3000, 65_536]),
        host_most in prop::sample::select(vec![100, 5000, 300_000]),
        buf_alloc in prop::sample::select(vec![1, 700, 5000, BUF_ALLOC]),
    ) {
        // With the minimum credit, a packet has one byte.
        let len = if buf_alloc == 1 { 2000 } else { 300_000 };
        let program = Program { seed, len: if most == 50 { 100_000 } else { 2 << 20 }, most };
        both_ways(len, host_most, buf_alloc, program);
    }
}

/// 10 GiB each way, concurrently: the counts of both sides wrap.
#[test]
#[ignore = "a minute: run it by hand with --ignored"]
fn data_of_10_gib_both_ways_arrives_as_it_was() {
    let len = 10 << 30;
    both_ways(len, 1 << 20, BUF_ALLOC, Program { seed: 1, len, most: 65_536 });
}

/// Each connection has a descriptor at both ends.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }).unwrap();
}

#[test]
fn connections_from_the_host_1000_at_once_carry_their_own_data() {
    raise_descriptor_limit();
    let (mut guest, directory) = running();
    let mut clients: Vec<_> = (0..1000).map(|_| client(&directory, GUEST_PORT)).collect();
    let mut flows: Vec<_> = (0..1000).map(|_| guest.accept()).collect();
    let mut by_port: HashMap<u32, UnixStream> = HashMap::new();
    for mut client in clients.drain(..) {
        let port = line(&mut client).trim_start_matches("OK ").trim_end().parse().unwrap();
        assert!(by_port.insert(port, client).is_none());
    }
    for (n, flow) in flows.iter_mut().enumerate() {
        guest.send_data(flow, format!("to the host {n:4}").as_bytes());
        let socket = by_port.get_mut(&flow.host_port).unwrap();
        assert_eq!(read(socket, 16), format!("to the host {n:4}").as_bytes());
        socket.write_all(format!("to a guest {n:4}").as_bytes()).unwrap();
    }
    let mut received = HashMap::new();
    while received.len() < 1000 {
        let (header, data) = guest.packet();
        assert_eq!(header.op, Op::Rw as u16);
        received.insert(header.src_port, data);
    }
    for (n, flow) in flows.iter().enumerate() {
        assert_eq!(received[&flow.host_port], format!("to a guest {n:4}").as_bytes());
    }
    drop(by_port);
    (0..1000).for_each(|_| assert_eq!(guest.packet().0.op, Op::Shutdown as u16));
    flows.iter().for_each(|flow| guest.send_op(flow, Op::Rst));
    guest.settle();
}

#[test]
fn connections_from_the_guest_1000_at_once_are_taken() {
    raise_descriptor_limit();
    let (mut guest, directory) = running();
    let listener = listener(&directory, HOST_PORT);
    let acceptor = std::thread::spawn(move || {
        let sockets = (0..1000).map(|_| listener.accept().unwrap().0);
        let mut sockets: Vec<_> = sockets.collect();
        sockets.iter_mut().for_each(|socket| socket.write_all(b"hello").unwrap());
        sockets
    });
    let flows: Vec<_> = (0..1000).map(|_| guest.request(HOST_PORT)).collect();
    let (mut responses, mut hellos) = (0, 0);
    let mut promised = 0_u64;
    while hellos < 1000 {
        let (header, data) = guest.packet();
        if header.op == Op::Response as u16 {
            responses += 1;
            promised += u64::from(header.buf_alloc);
        } else {
            assert_eq!((header.op, &data[..]), (Op::Rw as u16, &b"hello"[..]));
            hellos += 1;
        }
    }
    assert_eq!(responses, 1000);
    // 256 of 256 KiB, and 16 KiB for each of the others.
    assert_eq!(promised, (64 << 20) + 744 * (16 << 10));
    assert_eq!(flows.len(), acceptor.join().unwrap().len());
}
