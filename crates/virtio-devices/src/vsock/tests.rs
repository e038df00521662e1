//! Tests of timeouts, with a clock of their own; everything else is tested through a driver.

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use vmm_virtio::testing::LooseChain;
use vmm_virtio::{Counters, Step};

use super::flows::{Flows, Host};
use super::listener::Listener;
use super::packet::{HEADER_LEN, HOST_CID, Header, Op, SHUT_BOTH, SHUT_SEND, TYPE_STREAM};
use super::poll::Poll;

const CID: u32 = 3;

/// All flows with their environment, but without queue and thread.
struct Bench {
    directory: TempDir,
    flows: Flows,
    listener: Listener,
    poll: Poll,
    counters: Counters,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        Self {
            flows: Flows::new(CID, 8, 4096),
            listener: Listener::open(directory.path().join("v.sock"), false).unwrap(),
            poll: Poll::new().unwrap(),
            counters: Counters::default(),
            now: Instant::now(),
            directory,
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Flows, Host<'_>) -> T) -> T {
        let Self { flows, listener, poll, counters, now, .. } = self;
        act(flows, Host { listener, poll, counters, now: *now })
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.with(Flows::expire);
    }

    fn take(&mut self, header: &Header, data: &[u8]) {
        let bytes = header.to_bytes();
        let chain = LooseChain::new(&[&bytes, data], &[]);
        self.with(|flows, host| flows.take(&chain.chain(), host)).unwrap();
    }

    /// The next packet for the guest.
    fn give(&mut self) -> Option<Header> {
        let chain = LooseChain::new(&[], &[HEADER_LEN as u32, 100]);
        let step = self.with(|flows, host| flows.give(&chain.chain(), host)).unwrap();
        let mut bytes = [0; HEADER_LEN];
        chain.chain().writable().read(&mut bytes).unwrap();
        matches!(step, Step::Used(_)).then(|| Header::from_bytes(&bytes))
    }

    /// A client that connects to port 52, and the resulting request to the guest.
    fn request(&mut self) -> (UnixStream, Header) {
        let (client, socket) = UnixStream::pair().unwrap();
        let now = self.now;
        self.with(|flows, _| flows.open_for_host(socket, 52, now)).unwrap();
        (client, self.give().unwrap())
    }
}

fn from_guest(op: Op, host_port: u32, guest_port: u32) -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: HOST_CID,
        src_port: guest_port,
        dst_port: host_port,
        kind: TYPE_STREAM,
        op: op as u16,
        buf_alloc: 1000,
        ..Header::default()
    }
}

fn is_reset(header: Option<Header>) -> bool {
    header.is_some_and(|header| header.op == Op::Rst as u16)
}

#[test]
fn guest_that_does_not_answer_a_request_is_given_up_after_ten_seconds() {
    let mut bench = Bench::new();
    let (mut client, _) = bench.request();
    bench.wait(Duration::from_millis(9_999));
    assert_eq!(bench.give(), None);
    assert!(bench.flows.has_deadlines());
    bench.wait(Duration::from_millis(1));
    assert!(is_reset(bench.give()));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    bench.wait(Duration::ZERO);
    assert!(!bench.flows.has_deadlines());
}

#[test]
fn guest_that_answers_is_not_given_up() {
    let mut bench = Bench::new();
    let (_client, request) = bench.request();
    bench.take(&from_guest(Op::Response, request.src_port, request.dst_port), &[]);
    bench.wait(Duration::from_secs(3600));
    assert_eq!(bench.give(), None);
    assert!(!bench.flows.has_deadlines());
}

#[test]
fn connection_of_which_a_direction_is_over_rests() {
    let mut bench = Bench::new();
    let (_client, request) = bench.request();
    bench.with(|flows, host| host.poll.add(flows.socket(0).unwrap(), 0)).unwrap();
    bench.take(&from_guest(Op::Response, request.src_port, request.dst_port), &[]);
    let end = from_guest(Op::Shutdown, request.src_port, request.dst_port);
    bench.take(&Header { flags: SHUT_SEND, ..end }, &[]);
    // The shutdown triggers an event as well, which must not trigger another.
    for _ in 0..3 {
        let events = bench.poll.take();
        bench.with(|flows, host| events.iter().for_each(|event| flows.wake(0, event.is_hung_up, host)));
    }
    assert_eq!(bench.poll.take(), []);
}

#[test]
fn guest_that_does_not_answer_an_end_is_reset_after_two_seconds() {
    let mut bench = Bench::new();
    let (client, request) = bench.request();
    bench.take(&from_guest(Op::Response, request.src_port, request.dst_port), &[]);
    drop(client);
    bench.with(|flows, host| flows.wake(0, true, host));
    let header = bench.give().unwrap();
    assert_eq!((header.op, header.flags), (Op::Shutdown as u16, SHUT_BOTH));
    bench.wait(Duration::from_millis(1_999));
    assert_eq!(bench.give(), None);
    bench.wait(Duration::from_millis(1));
    assert!(is_reset(bench.give()));
}

#[test]
fn host_without_room_for_a_client_is_given_up_after_two_seconds() {
    let mut bench = Bench::new();
    let listener =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    let path = bench.directory.path().join("v.sock_9");
    rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    bench.take(&from_guest(Op::Request, 9, 1), &[]);
    bench.wait(Duration::from_millis(1_999));
    assert_eq!(bench.give(), None);
    bench.wait(Duration::from_millis(1));
    assert!(is_reset(bench.give()));
}

#[test]
fn pause_of_the_machine_is_no_waiting() {
    let mut bench = Bench::new();
    let (_client, _) = bench.request();
    bench.now += Duration::from_secs(3600);
    let now = bench.now;
    bench.flows.refresh(now);
    bench.wait(Duration::ZERO);
    assert_eq!(bench.give(), None);
}

#[test]
fn connections_are_4096_at_most_and_one_more_is_refused() {
    let mut bench = Bench::new();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    assert!(limit.maximum.is_none_or(|most| most > 5000), "the host gives too few descriptors: {limit:?}");
    let (_client, socket) = UnixStream::pair().unwrap();
    let now = bench.now;
    for _ in 0..4096 {
        let socket = socket.try_clone().unwrap();
        assert!(bench.flows.open_for_host(socket, 52, now).is_some());
    }
    let _listener = UnixListener::bind(bench.directory.path().join("v.sock_9")).unwrap();
    assert!(bench.flows.open_for_host(socket.try_clone().unwrap(), 52, now).is_none());
    bench.take(&from_guest(Op::Request, 9, 1), &[]);
    assert!(is_reset(bench.give()));
    bench.flows.close(77);
    assert_eq!(bench.flows.open_for_host(socket, 52, now), Some(77));
}

#[test]
fn ports_of_a_guests_choice_are_not_given_twice() {
    let mut bench = Bench::new();
    let _listener = UnixListener::bind(bench.directory.path().join("v.sock_1073741824")).unwrap();
    // The guest connects from its port 52 to the first of ours.
    bench.take(&from_guest(Op::Request, 1 << 30, 52), &[]);
    assert_eq!(bench.give().unwrap().op, Op::Response as u16);
    let (_client, request) = bench.request();
    assert_eq!((request.src_port, request.dst_port), ((1 << 30) + 1, 52));
}
