//! smoltcp's DHCP client, connected to our services.

use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant;
use smoltcp::wire::{DhcpMessageType, HardwareAddress, Ipv4Address, Ipv4Cidr};

use super::*;

/// The settings that the client received.
pub(super) struct Lease {
    pub(super) address: Ipv4Cidr,
    pub(super) router: Option<Ipv4Address>,
    pub(super) dns: Vec<Ipv4Address>,
}

pub(super) struct Client {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    link: Link,
    /// Type of the last message that it received.
    pub(super) last_type: Option<DhcpMessageType>,
}

impl Client {
    pub(super) fn new(mac: [u8; 6]) -> Self {
        let mut link = Link::default();
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        let interface = Interface::new(config, &mut link, Instant::ZERO);
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(dhcpv4::Socket::new());
        Self { interface, sockets, socket, link, last_type: None }
    }

    /// Runs the client at a time in seconds until neither side sends anything, and returns a new lease.
    pub(super) fn run(&mut self, seconds: i64) -> Option<Lease> {
        let now = Instant::from_secs(seconds);
        let mut lease = None;
        // Discover, request and ARP take fewer turns.
        for _ in 0..16 {
            self.interface.poll(now, &mut self.link, &mut self.sockets);
            let socket = self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.socket);
            if let Some(event) = socket.poll() {
                lease = configure(&mut self.interface, event);
            }
            self.answer();
        }
        lease
    }

    fn answer(&mut self) {
        let services = Services::new(1500);
        while let Some(frame) = self.link.from_guest.pop_front() {
            let mut out = Vec::new();
            if services.answer(&frame, &mut out) == Answer::Reply {
                self.last_type = message_type(&out).or(self.last_type);
                self.link.to_guest.push_back(out);
            }
        }
    }
}

/// Configures the interface as the client requests, which the user of `Interface` has to do.
fn configure(interface: &mut Interface, event: dhcpv4::Event<'_>) -> Option<Lease> {
    let dhcpv4::Event::Configured(config) = event else {
        interface.update_ip_addrs(|addresses| addresses.clear());
        return None;
    };
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        addresses.push(config.address.into()).unwrap();
    });
    Some(Lease { address: config.address, router: config.router, dns: config.dns_servers.to_vec() })
}

/// The DHCP message type of a frame, if it has one.
fn message_type(frame: &[u8]) -> Option<DhcpMessageType> {
    let packet = Ipv4Packet::new_checked(frame.get(14..)?).ok()?;
    let udp = UdpPacket::new_checked(packet.payload()).ok()?;
    let message = smoltcp::wire::DhcpPacket::new_checked(udp.payload()).ok()?;
    message.options().find(|option| option.kind == 53).map(|option| option.data[0].into())
}

/// Frames in transit.
#[derive(Default)]
struct Link {
    from_guest: VecDeque<Vec<u8>>,
    to_guest: VecDeque<Vec<u8>>,
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Link {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.to_guest.pop_front()?;
        Some((Incoming(frame), Outgoing(&mut self.from_guest)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.from_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}
