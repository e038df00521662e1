//! The conformance suite for all devices, which are opened from configs. A separate test fails if a kind in
//! the table has no suite.

use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};
use vmm_sandbox::Allow;
use vmm_virtio::testing::{Expectations, UNWRITTEN};
use vmm_virtio::{
    ConfigSpace, Fault, HostPort, Needs, Persistence, Session, Setting, VirtioDevice, conformance,
};
use vmm_virtio_devices::KINDS;

/// The device of a config with `"type": kind` and these fields.
fn open(kind: &str, fields: Value) -> Box<dyn VirtioDevice> {
    let entry = KINDS.iter().find(|entry| entry.name == kind).expect("it is in the table");
    let setting = Setting { directory: Path::new("."), vcpus: 1, id: kind, plan_only: false };
    entry.open(fields, &setting).expect("it can be opened")
}

/// 64 random bytes.
const RNG: Expectations = Expectations {
    id: 4,
    queues: &[64],
    writable: 64,
    written: 64,
    // The probability that they are all equal is 2^-504.
    check: |bytes| assert_ne!(bytes, [UNWRITTEN; 64]),
    ..Expectations::NONE
};

/// A disk whose file is deleted when it is dropped. All are unchanged copies of one disk, so that one can have the state of another until
/// it is written.
fn disk(mut fields: Value) -> Box<dyn VirtioDevice> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(1 << 20).expect("a sparse megabyte");
    file.as_file().set_modified(SystemTime::UNIX_EPOCH).expect("it is the test's own");
    (fields["path"], fields["queues"]) = (json!(file.path()), json!(1));
    open("block", fields)
}

/// VIRTIO_BLK_F_SIZE_MAX, SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD and WRITE_ZEROES.
const DISK_FEATURES: u64 = 1 << 1 | 1 << 2 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13 | 1 << 14;

/// A read of the first sector, which contains zeros, followed by the status.
const DISK: Expectations = Expectations {
    id: 2,
    features: DISK_FEATURES,
    queues: &[256],
    readable: &[0; 16],
    writable: 513,
    written: 513,
    check: |bytes| assert_eq!(bytes, [0; 513]),
    ..Expectations::NONE
};

/// What is written to it ends with the monitor.
const TEMPORARY_DISK: Expectations = Expectations {
    refusal: Some("a disk with a temporary overlay can't be saved, as its contents end here"),
    ..DISK
};

/// VIRTIO_CONSOLE_F_SIZE.
const CONSOLE_FEATURES: u64 = 1;

/// Output of the guest.
const CONSOLE_OUTPUT: Expectations = Expectations {
    id: 3,
    features: CONSOLE_FEATURES,
    queues: &[64, 64],
    queue: 1,
    readable: b"printed",
    ..Expectations::NONE
};

/// Input.
const CONSOLE_INPUT: Expectations = Expectations {
    id: 3,
    features: CONSOLE_FEATURES,
    queues: &[64, 64],
    writable: 8,
    written: 8,
    check: |bytes| assert_eq!(bytes, [b'x'; 8]),
    ..Expectations::NONE
};

/// A console with constant input as fast as it accepts it: the letter x, in groups of eight.
struct TypingConsole {
    console: Box<dyn VirtioDevice>,
    host: HostPort,
}

impl TypingConsole {
    fn open() -> Box<dyn VirtioDevice> {
        let mut console = open("console", json!({"target": "none"}));
        let host = console.port().expect("it has one");
        Box::new(Self { console, host })
    }

    fn type_on<T>(&self, result: T) -> T {
        self.host.send(&[b'x'; 64]);
        result
    }
}

impl VirtioDevice for TypingConsole {
    fn needs(&self) -> Needs {
        self.console.needs()
    }

    fn features(&self) -> u64 {
        self.console.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.console.queue_sizes()
    }

    fn config_space(&self) -> ConfigSpace {
        self.console.config_space()
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.console.start(session)
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        let done = self.console.process(queue, session);
        self.type_on(done)
    }

    fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let done = self.console.event(token, session);
        self.type_on(done)
    }

    fn stop(&mut self, session: &mut Session) {
        self.console.stop(session);
    }

    fn persistence(&mut self) -> Persistence<'_> {
        self.console.persistence()
    }
}

/// The guest returns its first page, which is unused.
const BALLOON_INFLATE: Expectations = Expectations {
    id: 5,
    // VIRTIO_BALLOON_F_MUST_TELL_HOST, STATS_VQ, DEFLATE_ON_OOM, PAGE_POISON and PAGE_REPORTING.
    features: 1 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5,
    queues: &[128; 5],
    readable: &[0; 4],
    ..Expectations::NONE
};

/// A file of 2 MiB as persistent memory.
fn pmem() -> Box<dyn VirtioDevice> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(2 << 20).expect("sparse");
    open("pmem", json!({"path": file.path()}))
}

/// VIRTIO_PMEM_REQ_TYPE_FLUSH, and that it was done.
const PMEM_FLUSH: Expectations = Expectations {
    id: 27,
    queues: &[64],
    readable: &[0; 4],
    writable: 4,
    written: 4,
    check: |bytes| assert_eq!(bytes, [0; 4]),
    ..Expectations::NONE
};

/// VIRTIO_NET_F_MAC, MRG_RXBUF and STATUS.
const NET_FEATURES: u64 = 1 << 5 | 1 << 15 | 1 << 16;

/// A card and the peer of its socket.
fn card() -> (Box<dyn VirtioDevice>, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().expect("two descriptors");
    ours.set_nonblocking(true).expect("a socket can");
    (open("net", json!({"backend": {"fd": theirs.as_raw_fd()}})), ours)
}

/// A card and the peer of its stream.
fn card_at_a_passt() -> (Box<dyn VirtioDevice>, UnixStream) {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let path = directory.path().join("passt");
    let listener = UnixListener::bind(&path).expect("a socket");
    let card = open("net", json!({"backend": {"passt": path}}));
    let (peer, _) = listener.accept().expect("it is connected");
    peer.set_nonblocking(true).expect("a socket can");
    (card, peer)
}

/// A frame from the guest.
const NET_TRANSMIT: Expectations = Expectations {
    id: 1,
    features: NET_FEATURES,
    queues: &[256, 256],
    queue: 1,
    readable: &[0; 12 + 60],
    ..Expectations::NONE
};

/// A frame for the guest.
const NET_RECEIVE: Expectations = Expectations {
    id: 1,
    features: NET_FEATURES,
    queues: &[256, 256],
    writable: 72,
    written: 72,
    check: |bytes| {
        // The header reports one buffer.
        assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(bytes[12..], [b'f'; 60]);
    },
    ..Expectations::NONE
};

/// Additionally VIRTIO_NET_F_CSUM, GUEST_CSUM and MTU.
const NET_USER_FEATURES: u64 = NET_FEATURES | 1 | 1 << 1 | 1 << 3;

/// virtio and Ethernet headers, and an ARP request from 10.0.2.15 for the gateway's address, which is
/// answered.
const ARP: &[u8] = b"\0\0\0\0\0\0\0\0\0\0\0\0\
    \xff\xff\xff\xff\xff\xff\x02\0\0\0\0\0\x08\x06\
    \0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\0\x0a\0\x02\x0f\0\0\0\0\0\0\x0a\0\x02\x02";

/// The gateway's reply.
const NET_USER_TRANSMIT: Expectations =
    Expectations { features: NET_USER_FEATURES, readable: ARP, ..NET_TRANSMIT };

/// A datagram for the guest.
const NET_USER_RECEIVE: Expectations = Expectations {
    features: NET_USER_FEATURES,
    check: |bytes| {
        assert_eq!(bytes[10..12], [1, 0], "one buffer");
        assert_eq!(bytes[54..], [b'f'; 18]);
    },
    ..NET_RECEIVE
};

/// A card with a host port forwarded to its guest. The port was free a moment ago; if another test has taken
/// it, the next one is tried.
fn forwarding() -> (Box<dyn VirtioDevice>, u16) {
    let entry = KINDS.iter().find(|entry| entry.name == "net").expect("it is in the table");
    let setting = Setting { directory: Path::new("."), vcpus: 1, id: "net", plan_only: false };
    let ports = std::iter::repeat_with(|| {
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
    });
    let open = |port: u16| {
        let forward = [format!("udp:127.0.0.1:{port}:7")];
        Some((entry.open(json!({"backend": "user", "forward": forward}), &setting).ok()?, port))
    };
    ports.take(100).find_map(open).expect("one of them is free")
}

/// A card whose peer sends the same frame as often as it is accepted.
struct FloodedCard {
    card: Box<dyn VirtioDevice>,
    /// Sends it as often as there is room for it.
    send: Box<dyn FnMut() + Send>,
}

impl FloodedCard {
    fn open() -> Box<dyn VirtioDevice> {
        let (card, peer) = card();
        let frame = [[0; 12].as_slice(), &[b'f'; 60]].concat();
        Box::new(Self { card, send: Box::new(move || while peer.send(&frame).is_ok() {}) })
    }

    fn by_passt() -> Box<dyn VirtioDevice> {
        let (card, mut peer) = card_at_a_passt();
        let frame = [60_u32.to_be_bytes().as_slice(), &[b'f'; 60]].concat();
        Box::new(Self { card, send: Box::new(move || while peer.write(&frame).is_ok() {}) })
    }

    fn by_a_forward() -> Box<dyn VirtioDevice> {
        let (card, port) = forwarding();
        let peer = UdpSocket::bind("127.0.0.1:0").expect("a port");
        peer.connect(("127.0.0.1", port)).expect("it is there");
        // A UDP socket is never full: several are sent for each activity of the card.
        let send = move || (0..16).for_each(|_| _ = peer.send(&[b'f'; 18]));
        Box::new(Self { card, send: Box::new(send) })
    }

    fn send_on<T>(&mut self, result: T) -> T {
        (self.send)();
        result
    }
}

impl VirtioDevice for FloodedCard {
    fn needs(&self) -> Needs {
        /// For the test's socket.
        const SEND: &[Allow] = &[Allow::call(libc::SYS_sendto)];
        let mut needs = self.card.needs();
        needs.calls.push(SEND);
        needs
    }

    fn features(&self) -> u64 {
        self.card.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.card.queue_sizes()
    }

    fn config_space(&self) -> ConfigSpace {
        self.card.config_space()
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.card.start(session)
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        let done = self.card.process(queue, session);
        self.send_on(done)
    }

    fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let done = self.card.event(token, session);
        self.send_on(done)
    }

    fn stop(&mut self, session: &mut Session) {
        self.card.stop(session);
    }

    fn persistence(&mut self) -> Persistence<'_> {
        self.card.persistence()
    }
}

/// A device whose socket's directory is deleted when it is dropped.
struct VsockInTempDir {
    vsock: Box<dyn VirtioDevice>,
    _directory: tempfile::TempDir,
}

impl VsockInTempDir {
    fn open() -> Box<dyn VirtioDevice> {
        let directory = tempfile::TempDir::new().expect("a directory");
        let vsock = open("vsock", json!({"path": directory.path().join("v.sock")}));
        Box::new(Self { vsock, _directory: directory })
    }
}

impl VirtioDevice for VsockInTempDir {
    fn needs(&self) -> Needs {
        self.vsock.needs()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.vsock.queue_sizes()
    }

    fn config_space(&self) -> ConfigSpace {
        self.vsock.config_space()
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.vsock.start(session)
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        self.vsock.process(queue, session)
    }

    fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        self.vsock.event(token, session)
    }

    fn stop(&mut self, session: &mut Session) {
        self.vsock.stop(session);
    }

    fn persistence(&mut self) -> Persistence<'_> {
        self.vsock.persistence()
    }
}

/// A reset from 3 to 2 for unconnected ports, the only packet that is never answered.
const VSOCK_TRANSMIT: Expectations = Expectations {
    id: 19,
    queues: &[256, 256, 64],
    queue: 1,
    readable: &[
        3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ],
    ..Expectations::NONE
};

/// The suites of each kind: their name, the device's constructor, and the expectations.
macro_rules! suites {
    ($($kind:literal => { $($name:ident: $make:expr, $expect:expr;)* })*) => {
        $($(conformance!($name, $make, $expect);)*)*

        const TESTED: &[(&str, &[Expectations])] = &[$(($kind, &[$($expect),*])),*];
    };
}

suites! {
    "balloon" => {
        balloon_inflate: || open("balloon", json!({"size": "1M"})), BALLOON_INFLATE;
    }
    "block" => {
        block_by_io_uring: || disk(json!({"io": "io_uring"})), DISK;
        block_by_threads: || disk(json!({"io": "threads"})), DISK;
        block_overlay: || disk(json!({"overlay": "temp"})), TEMPORARY_DISK;
        block_limited:
            || disk(json!({"limits": {"operations_per_second": 1_000_000, "operations_burst": 1}})), DISK;
    }
    "console" => {
        console_output: || open("console", json!({"target": "none"})), CONSOLE_OUTPUT;
        console_input: TypingConsole::open, CONSOLE_INPUT;
    }
    "net" => {
        // There is no peer, so frames are dropped.
        net_transmit: || card().0, NET_TRANSMIT;
        net_passt_transmit: || card_at_a_passt().0, NET_TRANSMIT;
        net_user_transmit: || open("net", json!({"backend": "user"})), NET_USER_TRANSMIT;
        net_receive: FloodedCard::open, NET_RECEIVE;
        net_passt_receive: FloodedCard::by_passt, NET_RECEIVE;
        net_user_receive: FloodedCard::by_a_forward, NET_USER_RECEIVE;
    }
    "pmem" => {
        pmem_flush: pmem, PMEM_FLUSH;
    }
    "rng" => {
        rng: || open("rng", json!({})), RNG;
    }
    "vsock" => {
        vsock_transmit: VsockInTempDir::open, VSOCK_TRANSMIT;
    }
}

/// A kind without a suite would never have been tested with hostile drivers.
#[test]
fn kinds_of_the_table_all_have_a_suite() {
    for kind in KINDS {
        let tested = TESTED.iter().find(|(name, _)| *name == kind.name);
        let ids: Vec<u32> =
            tested.into_iter().flat_map(|(_, suites)| suites.iter().map(|suite| suite.id)).collect();
        assert!(!ids.is_empty(), "{}: no conformance suite; add one to suites! in this file", kind.name);
        assert!(
            ids.iter().all(|id| *id == kind.id),
            "{}: a suite expects another device's id: {ids:?}",
            kind.name
        );
    }
}
