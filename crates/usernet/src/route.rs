//! Routes packets from the guest: to their flow, to a new flow, or back with an error.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::SocketType;
use smoltcp::wire::{IpProtocol, TcpPacket, UdpPacket};

use crate::addresses::{
    NETWORK_V4, NETWORK_V6, PREFIX_LEN_V4, PREFIX_LEN_V6, can_be_destination, is_gateway, is_resolver,
};
use crate::allow::Protocol;
use crate::flow::{Key, NetworkFlow};
use crate::host;
use crate::packet::Packet;
use crate::ping::{self, Ping};
use crate::pull_outcome::Closing;
use crate::table::Token;
use crate::tcp::Tcp;
use crate::udp::Udp;
use crate::unreachable::Reason;
use crate::usernet::{UserNet, can_be_source, ends};

/// The only port at which the resolver answers.
const DNS: u16 = 53;

/// IPv6 headers for which no error is sent: fragment and no next header (RFC 8200 §4.5, §4.7).
const IGNORED_HEADERS: [IpProtocol; 2] = [IpProtocol::Ipv6Frag, IpProtocol::Ipv6NoNxt];

impl UserNet {
    /// Routes a packet to the gateway that none of its services answered.
    pub(crate) fn route(&mut self, packet: &Packet<'_>) {
        if !can_be_source(packet.from) || !can_be_destination(packet.to) {
            return;
        }
        match packet.protocol {
            IpProtocol::Tcp => self.route_segment(packet),
            IpProtocol::Udp => self.route_datagram(packet),
            IpProtocol::Icmp if packet.from.is_ipv4() => self.route_echo(packet),
            IpProtocol::Icmpv6 if packet.from.is_ipv6() => self.route_echo(packet),
            protocol if IGNORED_HEADERS.contains(&protocol) => {}
            _ => self.shared.unreachable(packet, Reason::NoProtocol),
        }
    }

    fn route_segment(&mut self, packet: &Packet<'_>) {
        let Ok(segment) = TcpPacket::new_checked(packet.payload) else { return };
        let (guest, remote) = ends(packet, segment.src_port(), segment.dst_port());
        if guest.port() == 0 || remote.port() == 0 {
            return;
        }
        let key = Key { protocol: Protocol::Tcp, guest, remote };
        let is_new = segment.syn() && !segment.ack() && !segment.rst() && !segment.fin();
        if let Some(token) = self.table.find(&key) {
            self.pass_to_flow(token, packet);
        } else if is_new {
            self.connect(key, packet, &segment);
        } else {
            self.shared.refuse_segment(packet.whole);
        }
    }

    /// Opens a new connection from the guest.
    fn connect(&mut self, key: Key, packet: &Packet<'_>, syn: &TcpPacket<&[u8]>) {
        let to = match self.destination(&key) {
            Ok(to) => to,
            Err(Some(why)) => return self.shared.unreachable(packet, why),
            Err(None) => return self.shared.refuse_segment(packet.whole),
        };
        if !self.make_room() {
            return self.shared.refuse_segment(packet.whole);
        }
        let Ok(socket) = host::socket(to.ip(), SocketType::STREAM) else {
            return self.shared.refuse_segment(packet.whole);
        };
        let connected = rustix::net::connect(&socket, &to);
        let mut tcp = Tcp::connecting(key.guest, key.remote, socket, syn);
        match connected {
            Ok(()) => tcp.greet(&mut self.shared),
            Err(Errno::INPROGRESS) => {}
            Err(error) => return tcp.refuse(error, &mut self.shared),
        }
        if self.watch.add(tcp.host(), self.table.next_token()).is_err() {
            return self.shared.refuse_segment(packet.whole);
        }
        self.table.insert(key, NetworkFlow::Tcp(Box::new(tcp)));
    }

    fn route_datagram(&mut self, packet: &Packet<'_>) {
        let Ok(datagram) = UdpPacket::new_checked(packet.payload) else { return };
        let (guest, remote) = ends(packet, datagram.src_port(), datagram.dst_port());
        if guest.port() == 0 || remote.port() == 0 {
            return;
        }
        let key = Key { protocol: Protocol::Udp, guest, remote };
        let open = |to: IpAddr| host::socket(to, SocketType::DGRAM);
        self.route_to_flow(key, packet, open, |socket| NetworkFlow::Udp(Udp::new(guest, remote, socket)));
    }

    fn route_echo(&mut self, packet: &Packet<'_>) {
        let Some(identifier) = ping::identifier(packet) else { return };
        let (guest, remote) = ends(packet, identifier, 0);
        let key = Key { protocol: Protocol::Icmp, guest, remote };
        let flow = |socket| NetworkFlow::Ping(Ping::new(guest, remote.ip(), socket));
        self.route_to_flow(key, packet, host::echo_socket, flow);
    }

    /// Delivers the packet to its datagram flow, or to a new one with a socket from `open`.
    fn route_to_flow(
        &mut self,
        key: Key,
        packet: &Packet<'_>,
        open: impl Fn(IpAddr) -> Result<OwnedFd, Errno>,
        flow: impl FnOnce(OwnedFd) -> NetworkFlow,
    ) {
        if let Some(token) = self.table.find(&key) {
            return self.pass_to_flow(token, packet);
        }
        let to = match self.destination(&key) {
            Ok(to) => to,
            Err(why) => return self.shared.unreachable(packet, why.unwrap_or(Reason::Prohibited)),
        };
        if !self.make_room() {
            return;
        }
        let connected = || {
            let socket = open(to.ip())?;
            rustix::net::connect(&socket, &to)?;
            Ok(socket)
        };
        let mut opened = connected();
        if matches!(opened, Err(Errno::MFILE | Errno::NFILE))
            && let Some(token) = self.table.replaceable()
        {
            self.end(token, Closing::Orderly);
            opened = connected();
        }
        let socket = match opened {
            Ok(socket) => socket,
            // The packet is lost, as with a full table.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return,
            Err(error) => return self.shared.unreachable(packet, Reason::of(error)),
        };
        let flow = flow(socket);
        let watched = match &flow {
            NetworkFlow::Udp(udp) => self.watch.add(udp.host(), self.table.next_token()),
            NetworkFlow::Ping(ping) => self.watch.add(ping.host(), self.table.next_token()),
            NetworkFlow::Tcp(_) | NetworkFlow::ForwardedUdp(_) => Ok(()),
        };
        if watched.is_ok() {
            let token = self.table.insert(key, flow);
            self.pass_to_flow(token, packet);
        }
    }

    fn pass_to_flow(&mut self, token: Token, packet: &Packet<'_>) {
        let Some(flow) = self.table.get(token) else { return };
        match flow.packet(packet, &mut self.shared) {
            Ok(()) => self.table.make_ready(token),
            Err(end) => self.end(token, end),
        }
    }

    /// The host's address for the guest's `key.remote`. The error is the reason to report; without a reason
    /// the rules refused it, which is noted.
    fn destination(&mut self, key: &Key) -> Result<SocketAddr, Option<Reason>> {
        let Key { protocol, remote, .. } = *key;
        let address = remote.ip();
        let is_ours = is_gateway(address) || is_resolver(address);
        if !is_ours && is_on_link(address) {
            return Err(Some(Reason::NoHost));
        }
        let routes = &mut self.routes;
        // Without routes, no rule asks.
        let is_near = |address| routes.as_mut().is_none_or(|routes| routes.is_near(address));
        if !self.allow.permits(protocol, remote, is_near) {
            self.refused.note(protocol, remote);
            return Err(None);
        }
        if is_gateway(address) {
            return Ok(SocketAddr::new(host::loopback(address), remote.port()));
        }
        if !is_resolver(address) {
            return Ok(remote);
        }
        if remote.port() != DNS {
            return Err(Some(Reason::NoPort));
        }
        self.resolver.ok_or(Some(Reason::NoHost))
    }
}

/// Whether `address` is on the guest's own network, where there are only gateway, resolver and guest.
fn is_on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let shift = 32 - u32::from(PREFIX_LEN_V4);
            address.to_bits() >> shift == NETWORK_V4.to_bits() >> shift
        }
        IpAddr::V6(address) => {
            let shift = 128 - u32::from(PREFIX_LEN_V6);
            address.is_unicast_link_local() || address.to_bits() >> shift == NETWORK_V6.to_bits() >> shift
        }
    }
}
