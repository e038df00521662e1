//! A guest for the tests: another stack on the other end of the link, and a network to connect it to.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr,
    Ipv6Address, TcpPacket, TcpRepr,
};
use vmm_sandbox::{ViolationAction, confine_thread, enable, report_violations};
use vmm_usernet::{Allow, Forward, Frame, Resolver, SYSTEM_CALLS, Settings, UndeliveredTcp, UserNet};

pub(crate) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0, 2, 2];
pub(crate) const GATEWAY: &str = "10.0.2.2";
pub(crate) const GATEWAY_V6: &str = "fd76:6d6d::2";
pub(crate) const RESOLVER: &str = "10.0.2.3";
pub(crate) const MTU: u16 = 65520;

/// How long a test waits for an expected event. A successful test never takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn settings(rules: &[&str]) -> Settings {
    let rules: Vec<String> = rules.iter().map(|rule| rule.to_string()).collect();
    Settings {
        allow: Allow::parse(&rules).unwrap(),
        forwards: Vec::new(),
        resolver: Resolver::At("127.0.0.1:1".parse().unwrap()),
        mtu: MTU,
        guest_mac: GUEST_MAC,
        flows: 1024,
    }
}

pub(crate) fn forward(mut settings: Settings, text: &str) -> Settings {
    settings.forwards.push(Forward::parse(text).unwrap());
    settings
}

/// The guest's network card: queues of frames in both directions.
#[derive(Default)]
pub(crate) struct Card {
    pub(crate) sent: VecDeque<Vec<u8>>,
    pub(crate) received: VecDeque<Vec<u8>>,
    mtu: usize,
}

impl Device for Card {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Rx(frame), Tx(&mut self.sent)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

pub(crate) struct Rx(Vec<u8>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(crate) struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

/// The port before the first one that a guest connects from.
const PORTS: u16 = 40000;

/// A guest on a network of its own.
pub(crate) struct Guest {
    pub(crate) net: UserNet,
    pub(crate) card: Card,
    pub(crate) sockets: SocketSet<'static>,
    interface: Interface,
    epoch: Instant,
    buffer: Vec<u8>,
    next_port: u16,
}

/// Has the network do something as in the monitor, on a thread that may make only the calls of a network: any other ends the test's
/// process.
fn confined<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    report_violations(|| ()).unwrap();
    enable(ViolationAction::Trap);
    let confined = || {
        confine_thread("usernet", &[SYSTEM_CALLS]).unwrap();
        act()
    };
    thread::scope(|scope| scope.spawn(confined).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

impl Guest {
    pub(crate) fn new(settings: Settings) -> Self {
        let mtu = usize::from(settings.mtu);
        let net = UserNet::open(settings).unwrap();
        let mut card = Card { mtu, ..Card::default() };
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        let mut interface = Interface::new(config, &mut card, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 2, 15), 24)).unwrap();
            addresses.push(IpCidr::new("fd76:6d6d::15".parse::<Ipv6Address>().unwrap().into(), 64)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(Ipv4Address::new(10, 0, 2, 2)).unwrap();
        interface.routes_mut().add_default_ipv6_route(GATEWAY_V6.parse().unwrap()).unwrap();
        Self {
            net,
            card,
            sockets: SocketSet::new(Vec::new()),
            interface,
            epoch: Instant::now(),
            buffer: vec![0; mtu + 14],
            next_port: PORTS,
        }
    }

    /// Replaces the guest by another one, which uses the same ports.
    pub(crate) fn restart(&mut self) {
        confined(|| self.net.forget_guest());
        self.forget_sockets();
    }

    /// The next sockets use the same ports.
    pub(crate) fn forget_sockets(&mut self) {
        self.sockets = SocketSet::new(Vec::new());
        self.next_port = PORTS;
    }

    /// Runs both stacks once. Returns whether any frame was transferred.
    pub(crate) fn turn(&mut self) -> bool {
        let now = smoltcp::time::Instant::from_micros(self.epoch.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        let Self { net, card, buffer, .. } = self;
        confined(|| {
            let mut passed = false;
            while let Some(frame) = card.sent.pop_front() {
                net.send(&frame);
                passed = true;
            }
            while let Some(Frame { len, .. }) = net.receive(buffer) {
                card.received.push_back(buffer[..len].to_vec());
                passed = true;
            }
            passed
        })
    }

    /// Sends the guest's frames, and receives nothing.
    pub(crate) fn send_only(&mut self) {
        let now = smoltcp::time::Instant::from_micros(self.epoch.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        let Self { net, card, .. } = self;
        confined(|| {
            while let Some(frame) = card.sent.pop_front() {
                net.send(&frame);
            }
        });
    }

    /// As that of the network.
    pub(crate) fn deliver(&mut self, patience: Duration) -> Vec<UndeliveredTcp> {
        confined(|| self.net.deliver(patience))
    }

    /// The next raw frame for the guest.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let Frame { len, .. } = confined(|| self.net.receive(&mut self.buffer))?;
        Some(self.buffer[..len].to_vec())
    }

    /// Waits for the next raw frame for the guest, without running the guest's stack.
    #[track_caller]
    pub(crate) fn next_frame(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(frame) = self.receive() {
                return frame;
            }
            assert!(Instant::now() < deadline, "no frame in {PATIENCE:?}");
            self.wait();
        }
    }

    /// Waits for an event of the network and lets it handle the event; the guest receives nothing.
    pub(crate) fn next_news(&mut self) {
        self.wait();
        while self.receive().is_some() {}
    }

    /// Runs both stacks until `done` returns something.
    #[track_caller]
    pub(crate) fn until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let passed = self.turn();
            if let Some(value) = done(self) {
                return value;
            }
            assert!(Instant::now() < deadline, "it hasn't happened in {PATIENCE:?}");
            if !passed {
                self.wait();
            }
        }
    }

    /// Whether the network's descriptor is readable, or becomes so within `seconds`.
    pub(crate) fn is_readable(&self, seconds: i64) -> bool {
        let fd = self.net.as_fd();
        let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
    }

    /// Waits for an event of the network, or for the guest's own timers.
    pub(crate) fn wait(&mut self) {
        let now = smoltcp::time::Instant::from_micros(self.epoch.elapsed().as_micros() as i64);
        let own = self.interface.poll_delay(now, &self.sockets);
        // The peer of a test is another thread or absent; what it does to the guest's sockets isn't reported.
        let wait = own.map_or(Duration::from_millis(20), Duration::from).min(Duration::from_millis(20));
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let fd = self.net.as_fd();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap();
    }

    /// Starts a TCP connection.
    pub(crate) fn connect(&mut self, to: impl AsRef<str>) -> SocketHandle {
        let to: SocketAddr = to.as_ref().parse().unwrap();
        let mut socket = tcp_socket();
        self.next_port += 1;
        socket.connect(self.interface.context(), to, self.next_port).unwrap();
        self.sockets.add(socket)
    }

    /// Opens a TCP connection.
    #[track_caller]
    pub(crate) fn connected(&mut self, to: impl AsRef<str>) -> SocketHandle {
        let handle = self.connect(to);
        self.until(|guest| guest.tcp(handle).may_send().then_some(()));
        handle
    }

    /// Like `connected`, with buffers so small that there can be a thousand.
    #[track_caller]
    pub(crate) fn connected_small(&mut self, to: impl AsRef<str>) -> SocketHandle {
        let to: SocketAddr = to.as_ref().parse().unwrap();
        let buffer = || tcp::SocketBuffer::new(vec![0; 2048]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        self.next_port += 1;
        socket.connect(self.interface.context(), to, self.next_port).unwrap();
        let handle = self.sockets.add(socket);
        self.until(|guest| guest.tcp(handle).may_send().then_some(()));
        handle
    }

    pub(crate) fn listen(&mut self, port: u16) -> SocketHandle {
        let mut socket = tcp_socket();
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    pub(crate) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(crate) fn udp_socket(&mut self, port: u16) -> SocketHandle {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 256 << 10]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub(crate) fn udp(&mut self, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Receives exactly these bytes.
    #[track_caller]
    pub(crate) fn expect(&mut self, handle: SocketHandle, expected: &[u8]) {
        let mut got = Vec::new();
        self.until(|guest| {
            let socket = guest.tcp(handle);
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        got.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
            let is_over =
                !matches!(socket.state(), tcp::State::Listen | tcp::State::SynSent | tcp::State::SynReceived)
                    && !socket.may_recv();
            (got.len() >= expected.len() || is_over).then_some(())
        });
        assert!(got == expected, "{} bytes instead of {}", got.len(), expected.len());
    }

    /// Receives a datagram.
    #[track_caller]
    pub(crate) fn datagram(&mut self, handle: SocketHandle) -> (Vec<u8>, SocketAddr) {
        self.until(|guest| {
            let (data, meta) = guest.udp(handle).recv().ok()?;
            Some((data.to_vec(), SocketAddr::new(meta.endpoint.addr.into(), meta.endpoint.port)))
        })
    }

    /// Type and code of a frame's ICMP message, if it has one.
    pub(crate) fn icmp(frame: &[u8]) -> Option<(u8, u8)> {
        match (&frame[12..14], frame[23], frame[20]) {
            ([0x08, 0x00], 1, _) => Some((frame[34], frame[35])),
            ([0x86, 0xdd], _, 58) => Some((frame[54], frame[55])),
            _ => None,
        }
    }

    /// Runs both stacks until `wanted` returns something for a frame to the guest.
    #[track_caller]
    pub(crate) fn frame<T>(&mut self, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        self.until(|guest| guest.card.received.iter().find_map(|frame| wanted(frame)))
    }
}

fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; 256 << 10]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    socket
}

/// A frame from the guest with this segment, without the TCP checksum, which isn't verified.
pub(crate) fn frame_of(to: [u8; 4], segment: &TcpRepr<'_>) -> Vec<u8> {
    let header = Ipv4Repr {
        src_addr: [10, 0, 2, 15].into(),
        dst_addr: to.into(),
        next_header: IpProtocol::Tcp,
        payload_len: segment.buffer_len(),
        hop_limit: 64,
    };
    let mut frame = [&GATEWAY_MAC[..], &GUEST_MAC, &[8, 0]].concat();
    let at = frame.len() + header.buffer_len();
    frame.resize(at + segment.buffer_len(), 0);
    header.emit(&mut Ipv4Packet::new_unchecked(&mut frame[14..]), &ChecksumCapabilities::default());
    segment.emit(
        &mut TcpPacket::new_unchecked(&mut frame[at..]),
        &header.src_addr.into(),
        &header.dst_addr.into(),
        &ChecksumCapabilities::ignored(),
    );
    frame
}

/// Bytes that differ by position.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|number| (number.wrapping_mul(2654435761) >> 13) as u8).collect()
}

/// Raises the limit of open files to at least `count`.
pub(crate) fn allow_descriptors(count: u64) {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        limit.current = Some(count);
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    }
}
