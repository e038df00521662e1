//! vhost devices, with Linux's drivers, and with a test driver that does what Linux doesn't.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use driver::{DEADLINE, wait_until};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::socket::{self, AddressFamily, Backlog, Shutdown, SockFlag, SockType, VsockAddr, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use tempfile::NamedTempFile;
use vmm_virtio::Setting;
use vmm_virtio::testing::{Buf, Descriptor, Driver, Register, features};
use vmm_virtio_devices::KINDS;

use crate::initrd::initrd_with;
use crate::linux::BAD_HOST;
use crate::net::{Network, assert_refused, busybox, mebibyte};
use crate::virtio::{counter, guest_of};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        net_vhost_carries_pings_and_a_mebibyte_both_ways,
        net_vhost_with_two_vcpus_has_two_pairs_of_queues,
        net_vhost_link_works_behind_a_flood,
        net_vhost_driver_that_leaves_and_comes_back_in_a_flood_finds_its_link,
        net_vhost_loses_and_doubles_no_frame_over_suspends,
        net_vhost_starts_anew_behind_each_reset,
        net_vhost_link_that_is_set_down_drops_frames_and_carries_again,
        net_vhost_chain_that_is_not_memory_needs_reset,
        net_vhost_ring_in_two_regions_needs_reset,
        vsock_vhost_carries_a_mebibyte_both_ways_and_again_with_a_new_driver,
        vsock_vhost_by_mmio_carries_a_mebibyte_both_ways_and_again_with_a_new_driver,
        vsock_vhost_loses_and_doubles_no_byte_over_suspends,
    ]
}

const VHOST: &str = r#", "vhost": true"#;

/// Transfers a mebibyte in each direction.
#[track_caller]
fn assert_carries_mebibytes(network: &mut Network) {
    let send = |mut stream: TcpStream| stream.write_all(&mebibyte()).expect("the guest reads");
    assert_eq!(network.connected("NC </dev/null >/tmp/file; wc -c </tmp/file", send), "1048576\n");
    network.connected("NC </tmp/file", |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the guest sends");
        assert!(bytes == mebibyte(), "{} bytes came back", bytes.len());
    });
}

fn net_vhost_carries_pings_and_a_mebibyte_both_ways() {
    let mut network = Network::start_with(11, VHOST, &[]);
    network.assert_pings();
    assert_carries_mebibytes(&mut network);
    let metrics = network.end();
    let of_lan = |name| counter(metrics.path(), "lan", name);
    assert_eq!([of_lan("kicks"), of_lan("bytes_in"), of_lan("bytes_out")], [0; 3], "the kernel did it");
    assert!(of_lan("interrupts") > 0);
}

fn net_vhost_with_two_vcpus_has_two_pairs_of_queues() {
    let mut network = Network::start_with(12, VHOST, &["--cpus", "2"]);
    assert_eq!(network.shell.run("ls /sys/class/net/eth0/queues"), "rx-0  rx-1  tx-0  tx-1\n");
    network.assert_pings();
    // Connections are distributed by a hash: of eight, each queue pair gets some.
    for _ in 0..8 {
        let send = |mut stream: TcpStream| stream.write_all(&mebibyte()).expect("the guest reads");
        assert_eq!(network.connected("NC </dev/null | wc -c", send), "1048576\n");
    }
    // A line per queue: its name, then the interrupts of all vCPUs.
    let metrics = network.end();
    assert_eq!(counter(metrics.path(), "lan", "bytes_in"), 0, "the kernel did it");
}

/// Sends datagrams that nobody receives, as fast as possible, until `is_over`; returns their number.
fn flood(from: Ipv4Addr, to: Ipv4Addr, mut is_over: impl FnMut() -> bool) -> u64 {
    let socket = UdpSocket::bind((from, 0)).expect("a port");
    let mut sent = 0;
    while !is_over() {
        // Errors are expected: the kernel may have no buffer, or report that nobody listens at that port.
        sent += u64::from(socket.send_to(&[0; 1400], (to, 9)).is_ok());
    }
    sent
}

fn net_vhost_link_works_behind_a_flood() {
    let mut network = Network::start_with(13, VHOST, &[]);
    network.assert_pings();
    let until = Instant::now() + Duration::from_secs(2);
    let sent = flood(network.host(), network.guest(), || Instant::now() > until);
    assert!(sent > 1000, "{sent} datagrams are no flood");
    network.assert_pings();
    assert_carries_mebibytes(&mut network);
    network.end();
}

/// Each time the queues are lent to the kernel and taken back while frames are in flight.
fn net_vhost_driver_that_leaves_and_comes_back_in_a_flood_finds_its_link() {
    let mut network = Network::start_with(14, VHOST, &["--cpus", "2"]);
    network.assert_pings();
    let (from, to) = (network.host(), network.guest());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let is_over = move || stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected);
    let flooding = std::thread::spawn(move || flood(from, to, is_over));
    for _ in 0..3 {
        network
            .shell
            .run("cd /sys/bus/virtio/drivers/virtio_net; echo virtio0 >unbind; echo virtio0 >bind; cd /");
        network.set_up_guest();
    }
    drop(stop);
    assert!(flooding.join().expect("the flood ends") > 0);
    network.assert_pings();
    assert_carries_mebibytes(&mut network);
    network.end();
}

const RECEIVEQ: usize = 0;
const TRANSMITQ: usize = 1;
const F_MRG_RXBUF: u64 = 1 << 15;
/// The card's MAC address.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 7];
/// Length of the headers: struct virtio_net_hdr_v1, Ethernet, IPv4, UDP.
const HEADERS: usize = 12 + 14 + 20 + 8;

/// A card with vhost and a TAP, the driver of this test, and a socket on the host.
struct Card {
    driver: Driver,
    subnet: u8,
    socket: UdpSocket,
    host_mac: [u8; 6],
}

impl Card {
    #[track_caller]
    fn new(subnet: u8) -> Self {
        let tap = format!("vmmtest{subnet}");
        let kind = KINDS.iter().find(|kind| kind.name == "net").expect("there are cards");
        let fields = serde_json::json!({"backend": {"tap": tap}, "vhost": true});
        let device =
            kind.open(fields, &Setting { directory: Path::new("/"), vcpus: 1, id: "net0", plan_only: false });
        let driver = Driver::new(device.expect("a TAP and /dev/vhost-net"), 1);
        busybox(&format!("ip addr add 10.77.{subnet}.1/24 brd + dev {tap}"));
        busybox(&format!("ip link set {tap} up"));
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        socket.set_broadcast(true).expect("a socket may");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket can");
        let text = std::fs::read_to_string(format!("/sys/class/net/{tap}/address")).expect("it is there");
        let bytes: Vec<u8> =
            text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect();
        let host_mac = bytes.try_into().expect("six bytes");
        Self { driver, subnet, socket, host_mac }
    }

    fn init(&mut self) {
        self.driver.init(F_MRG_RXBUF | features::EVENT_IDX | features::INDIRECT);
        for _ in 0..64 {
            self.driver.queue(RECEIVEQ).add(&[Buf::Write(2048)]);
        }
        self.driver.queue(RECEIVEQ).kick();
    }

    fn port(&self) -> u16 {
        self.socket.local_addr().expect("it is bound").port()
    }

    /// Broadcasts, so that no ARP is needed.
    #[track_caller]
    fn host_sends(&self, number: u32) {
        let to = Ipv4Addr::new(10, 77, self.subnet, 255);
        self.socket.send_to(&number.to_le_bytes(), (to, 9)).expect("the TAP is up");
    }

    /// The number in the next frame that the host's socket sent. Other frames of the host's kernel are ignored.
    #[track_caller]
    fn guest_takes(&mut self) -> u32 {
        let port = self.port().to_be_bytes();
        loop {
            let used = self.driver.queue(RECEIVEQ).wait_used();
            self.driver.queue(RECEIVEQ).add(&[Buf::Write(2048)]);
            self.driver.queue(RECEIVEQ).kick();
            let frame = used.written();
            let is_udp = frame[24..26] == [8, 0] && frame[35] == 17;
            if is_udp && frame[46..48] == port {
                assert_eq!(frame[10..12], [1, 0], "one buffer");
                return u32::from_le_bytes(frame[HEADERS..HEADERS + 4].try_into().expect("four bytes"));
            }
        }
    }

    fn datagram(&self, number: u32) -> Vec<u8> {
        let [high, low] = self.port().to_be_bytes();
        let mut ip =
            [0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, self.subnet, 2, 10, 77, self.subnet, 1];
        let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        // A checksum of 0 means that there is none (RFC 768).
        let udp = [0, 9, high, low, 0, 12, 0, 0];
        [&[0; 12][..], &self.host_mac, &MAC, &[8, 0], &ip, &udp, &number.to_le_bytes()].concat()
    }

    fn guest_sends(&mut self, number: u32) {
        let frame = self.datagram(number);
        self.driver.queue(TRANSMITQ).add(&[Buf::Read(&frame[..12]), Buf::Read(&frame[12..])]);
        self.driver.queue(TRANSMITQ).kick();
    }

    #[track_caller]
    fn host_takes(&self) -> u32 {
        let mut bytes = [0; 4];
        assert_eq!(self.socket.recv(&mut bytes).expect("the guest sent"), 4);
        u32::from_le_bytes(bytes)
    }

    /// Asserts that no number was received twice.
    #[track_caller]
    fn assert_host_has_no_more(&self) {
        self.socket.set_nonblocking(true).expect("a socket can");
        let kind = self.socket.recv(&mut [0; 4]).expect_err("nothing more").kind();
        assert_eq!(kind, std::io::ErrorKind::WouldBlock);
    }

    #[track_caller]
    fn assert_carries(&mut self, number: u32) {
        self.host_sends(number);
        assert_eq!(self.guest_takes(), number);
        self.guest_sends(number);
        assert_eq!(self.host_takes(), number);
    }
}

/// In each round, frames are in flight when the queues are taken back, and more arrive while nobody serves them.
fn net_vhost_loses_and_doubles_no_frame_over_suspends() {
    let mut card = Card::new(15);
    card.init();
    for round in 0..40 {
        let numbers = 4 * round..4 * round + 4;
        for number in numbers.clone() {
            card.host_sends(number);
            card.guest_sends(number);
            if number % 4 == 1 {
                card.driver.suspend();
            }
        }
        card.driver.resume();
        for number in numbers {
            assert_eq!(card.guest_takes(), number);
            assert_eq!(card.host_takes(), number);
            let sent = card.driver.queue(TRANSMITQ).wait_used();
            assert_eq!(sent.len, 0);
        }
    }
    card.assert_host_has_no_more();
    assert!(!card.driver.needs_reset());
    assert_eq!(card.driver.control().counters().kicks.get(), 0, "the kernel did it");
}

fn net_vhost_starts_anew_behind_each_reset() {
    const LATE: u32 = 1000;
    let mut card = Card::new(16);
    for number in 0..20 {
        card.init();
        card.host_sends(number);
        // Frames that arrived without a driver may still be in the TAP's queue.
        let taken = std::iter::repeat_with(|| card.guest_takes()).find(|taken| *taken != LATE);
        assert_eq!(taken, Some(number));
        card.guest_sends(number);
        assert_eq!(card.host_takes(), number);
        card.host_sends(LATE);
        card.driver.reset();
    }
    assert!(!card.driver.needs_reset());
}

fn net_vhost_link_that_is_set_down_drops_frames_and_carries_again() {
    let mut card = Card::new(18);
    card.init();
    card.assert_carries(1);
    card.driver.update(serde_json::json!({"link": "down"})).expect("it is a field of a card");
    // The buffer of the first frame, and that of one that is dropped.
    card.driver.queue(TRANSMITQ).wait_used();
    card.guest_sends(2);
    card.driver.queue(TRANSMITQ).wait_used();
    let refused = || card.driver.control().counters().refused.get();
    let before = refused();
    (0..50).for_each(|_| card.host_sends(3));
    wait_until("the host's are dropped", DEADLINE, || refused() >= before + 50);
    card.driver.update(serde_json::json!({"link": "up"})).expect("it is a field of a card");
    card.guest_sends(4);
    assert_eq!(card.host_takes(), 4, "not what was sent while the link was down");
    card.host_sends(4);
    // The host's kernel has sent frames of its own, which took the place of some of these.
    let stale = std::iter::repeat_with(|| card.guest_takes()).take_while(|number| *number != 4).count();
    assert!(stale < 10, "{stale} of 50 frames were kept while the link was down");
    card.driver.suspend();
    card.driver.resume();
    card.assert_carries(5);
}

fn net_vhost_chain_that_is_not_memory_needs_reset() {
    let mut card = Card::new(17);
    card.init();
    card.assert_carries(1);
    // Beyond the guest's memory.
    card.driver.queue(TRANSMITQ).add(&[Buf::ReadAt(1 << 40, 64)]);
    card.driver.queue(TRANSMITQ).kick();
    card.driver.wait_needs_reset();
    let fault = card.driver.control().take_fault().map(|fault| fault.to_string());
    assert_eq!(fault.as_deref(), Some("the kernel's vhost can't use a chain or a ring"));
    // Nobody serves it, even after a pause.
    card.driver.suspend();
    card.driver.resume();
    assert!(card.driver.needs_reset());
    card.init();
    card.assert_carries(2);
    // More available chains than descriptors.
    let index = card.driver.queue(TRANSMITQ).available_index();
    card.driver.queue(TRANSMITQ).set_available_index(index.wrapping_add(1000));
    card.driver.queue(TRANSMITQ).notify();
    card.driver.wait_needs_reset();
    card.init();
    card.assert_carries(3);
    // A chain with a loop.
    let looped = Descriptor { gpa: 0x1000, len: 64, flags: 1, next: 7 };
    card.driver.queue(TRANSMITQ).write_descriptor(7, looped);
    card.driver.queue(TRANSMITQ).make_available(7);
    card.driver.queue(TRANSMITQ).notify();
    card.driver.wait_needs_reset();
    card.init();
    card.assert_carries(4);
}

/// The driver's memory has two regions that are adjacent at 32 MiB, but not necessarily in the monitor's address space, where the kernel
/// would continue beyond the end of the first one.
fn net_vhost_ring_in_two_regions_needs_reset() {
    let mut card = Card::new(18);
    assert!(card.driver.negotiate(F_MRG_RXBUF));
    card.driver.set_up_queue(RECEIVEQ, 256);
    card.driver.set_up_queue(TRANSMITQ, 256);
    card.driver.write(Register::QueueSel, TRANSMITQ as u32);
    card.driver.write(Register::QueueReady, 0);
    card.driver.write(Register::QueueDescLow, (32 << 20) - 2048);
    card.driver.write(Register::QueueReady, 1);
    card.driver.driver_ok();
    card.driver.wait_needs_reset();
    let fault = card.driver.control().take_fault().map(|fault| fault.to_string());
    assert_eq!(fault.as_deref(), Some("queue 1: its rings aren't in memory or are misaligned"));
    card.init();
    card.assert_carries(1);
}

/// A vsock socket of the host, with a timeout for reads.
fn vsock() -> OwnedFd {
    let (family, flags) = (AddressFamily::Vsock, SockFlag::SOCK_CLOEXEC);
    let socket = socket::socket(family, SockType::Stream, flags, None).expect("the host has AF_VSOCK");
    let deadline = TimeVal::seconds(DEADLINE.as_secs() as i64);
    socket::setsockopt(&socket, sockopt::ReceiveTimeout, &deadline).expect("a socket can");
    socket
}

/// Sends a mebibyte to the echo program at this port of the guest, and checks what comes back.
#[track_caller]
fn assert_guest_echoes(cid: u32, port: u32) {
    let connection = vsock();
    socket::connect(connection.as_raw_fd(), &VsockAddr::new(cid, port)).expect("the guest listens");
    let mut connection = File::from(connection);
    let mut sending = connection.try_clone().expect("a descriptor");
    let sender = std::thread::spawn(move || {
        sending.write_all(&mebibyte()).expect("the guest reads");
        socket::shutdown(sending.as_raw_fd(), Shutdown::Write).expect("it is connected");
    });
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).expect("the guest sends, and ends");
    sender.join().expect("all was sent");
    assert!(bytes == mebibyte(), "{} bytes came back", bytes.len());
}

/// KVM delivers the interrupts of the kernel's server.
fn vsock_vhost_carries_a_mebibyte_both_ways_and_again_with_a_new_driver() {
    assert_eq!(interrupts_of_a_vhost_vsock("pci"), 0);
}

/// The device's thread delivers them.
fn vsock_vhost_by_mmio_carries_a_mebibyte_both_ways_and_again_with_a_new_driver() {
    assert!(interrupts_of_a_vhost_vsock("mmio") > 0);
}

/// Transfers a mebibyte in each direction by this transport, twice. Returns the interrupts that the device counted.
#[track_caller]
fn interrupts_of_a_vhost_vsock(transport: &str) -> u64 {
    const CID: u32 = 77;
    let metrics = NamedTempFile::new().expect("a temporary file");
    let device = format!(r#"{{"type": "vsock", "id": "agent", "cid": {CID}, "vhost": true}}"#);
    let flags = ["--metrics", metrics.path().to_str().expect("UTF-8")];
    let initrd = initrd_with(&[&format!("virtio_{transport}"), "vmw_vsock_virtio_transport"]);
    let config = format!(r#"{{"transport": "{transport}", "devices": [{device}]}}"#);
    let mut shell = guest_of(&initrd, &config, &flags);
    assert_eq!(shell.run("guest-agent echo vsock:52 & sleep 1"), "listening\n");
    assert_guest_echoes(CID, 52);

    let listener = vsock();
    let any = VsockAddr::new(u32::MAX, u32::MAX);
    socket::bind(listener.as_raw_fd(), &any).expect("a port");
    socket::listen(&listener, Backlog::new(1).expect("one")).expect("it is bound");
    let port = socket::getsockname::<VsockAddr>(listener.as_raw_fd()).expect("it is bound").port();
    let taking = std::thread::spawn(move || {
        let mut connection = File::from(rustix::net::accept(&listener).expect("the guest connects"));
        let taken = guest_agent::take(&mut connection, 5).expect("the bytes that the guest sent");
        connection.write_all(b"thanks").expect("the guest still reads");
        taken
    });
    let send = format!("guest-agent send vsock:2:{port} 5 1048576");
    assert_eq!(shell.run_within(&send, DEADLINE), "sent 1048576, then 6 came\n");
    assert_eq!(taking.join().expect("it took all"), 1 << 20);

    // Another guest can't have the same CID.
    let message = "devices[0].cid: 77 is in use by another guest on this host, choose another";
    assert_refused(1, &device, BAD_HOST, message);

    shell.run(
        "cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport; echo virtio0 >unbind; echo virtio0 >bind; cd /",
    );
    assert_eq!(shell.run("guest-agent echo vsock:53 & sleep 1"), "listening\n");
    assert_guest_echoes(CID, 53);
    shell.reboot();
    let of_agent = |name| counter(metrics.path(), "agent", name);
    assert_eq!([of_agent("faults"), of_agent("bytes_in")], [0; 2], "the kernel did it");
    of_agent("interrupts")
}

/// The driver's port, and operations in struct virtio_vsock_hdr (virtio 1.2 §5.10.6).
const GUEST_PORT: u32 = 1234;
const OP_REQUEST: u16 = 1;
const OP_RESPONSE: u16 = 2;
const OP_RW: u16 = 5;
const VSOCK_HEADER: usize = 44;

/// A packet from the guest to the host's `port`.
fn packet(cid: u64, port: u32, op: u16, data: &[u8]) -> Vec<u8> {
    const HOST: u64 = 2;
    const STREAM: u16 = 1;
    const ROOM: u32 = 1 << 20;
    let cids = [cid, HOST].map(u64::to_le_bytes).concat();
    let ports = [GUEST_PORT, port, data.len() as u32].map(u32::to_le_bytes).concat();
    let kinds = [STREAM, op].map(u16::to_le_bytes).concat();
    let credit = [0, ROOM, 0].map(u32::to_le_bytes).concat();
    [&cids, &ports, &kinds, &credit, data].concat()
}

/// In each round, bytes are in flight when the queues are taken back, and more arrive while nobody serves them.
fn vsock_vhost_loses_and_doubles_no_byte_over_suspends() {
    const CID: u32 = 78;
    let kind = KINDS.iter().find(|kind| kind.name == "vsock").expect("there is one");
    let fields = serde_json::json!({"cid": CID, "vhost": true});
    let device =
        kind.open(fields, &Setting { directory: Path::new("/"), vcpus: 1, id: "vsock0", plan_only: false });
    let mut driver = Driver::new(device.expect("/dev/vhost-vsock"), 19);
    driver.init(features::EVENT_IDX);
    for _ in 0..64 {
        driver.queue(RECEIVEQ).add(&[Buf::Write(4096)]);
    }
    driver.queue(RECEIVEQ).kick();
    let listener = vsock();
    socket::bind(listener.as_raw_fd(), &VsockAddr::new(u32::MAX, u32::MAX)).expect("a port");
    socket::listen(&listener, Backlog::new(1).expect("one")).expect("it is bound");
    let port = socket::getsockname::<VsockAddr>(listener.as_raw_fd()).expect("it is bound").port();
    let send = |driver: &mut Driver, op, data: &[u8]| {
        driver.queue(TRANSMITQ).add(&[Buf::Read(&packet(CID.into(), port, op, data))]);
        driver.queue(TRANSMITQ).kick();
    };
    // Receives the next packet with this operation and returns its data.
    let take = |driver: &mut Driver, op: u16| loop {
        let used = driver.queue(RECEIVEQ).wait_used();
        driver.queue(RECEIVEQ).add(&[Buf::Write(4096)]);
        driver.queue(RECEIVEQ).kick();
        if used.written()[30..32] == op.to_le_bytes() {
            return used.written()[VSOCK_HEADER..].to_vec();
        }
    };
    send(&mut driver, OP_REQUEST, &[]);
    let mut connection = File::from(rustix::net::accept(&listener).expect("the guest connects"));
    assert!(take(&mut driver, OP_RESPONSE).is_empty());
    for round in 0..40_u32 {
        let bytes = round.to_le_bytes();
        send(&mut driver, OP_RW, &bytes);
        driver.suspend();
        connection.write_all(&bytes).expect("the guest has room");
        driver.resume();
        assert_eq!(take(&mut driver, OP_RW), bytes);
        let mut came = [0; 4];
        connection.read_exact(&mut came).expect("the guest sent");
        assert_eq!(came, bytes);
        assert_eq!(driver.queue(TRANSMITQ).wait_used().len, 0);
    }
    assert!(!driver.needs_reset());
    drop(driver);
    assert_eq!(connection.read(&mut [0; 4]).ok().unwrap_or(0), 0, "nothing came twice");
}
