//! Where a packet of the guest's goes: to its flow, to a new one, or back with the reason.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::SocketType;
use smoltcp::wire::{IpProtocol, TcpPacket, UdpPacket};

use crate::addresses::{
    NETWORK_V4, NETWORK_V6, PREFIX_LEN_V4, PREFIX_LEN_V6, can_be_destination, is_gateway, is_resolver,
};
use crate::allow::Protocol;
use crate::flow::{Flow, Key};
use crate::host;
use crate::packet::Packet;
use crate::ping::{self, Ping};
use crate::pulled::End;
use crate::settings::Resolver;
use crate::table::Token;
use crate::tcp::Tcp;
use crate::udp::Udp;
use crate::unreachable::Why;
use crate::usernet::{UserNet, can_be_source, ends};

/// The resolver answers here and nowhere else.
const DNS: u16 = 53;

/// IPv6 headers that say nothing of a protocol we might carry: a fragment, and none at all (RFC 8200 §4.5, §4.7).
const SILENT: [IpProtocol; 2] = [IpProtocol::Ipv6Frag, IpProtocol::Ipv6NoNxt];

impl UserNet {
    /// Routes a packet that came to the gateway and that none of its services answered.
    pub(crate) fn route(&mut self, packet: &Packet<'_>) {
        if !can_be_source(packet.from) || !can_be_destination(packet.to) {
            return;
        }
        match packet.protocol {
            IpProtocol::Tcp => self.route_segment(packet),
            IpProtocol::Udp => self.route_datagram(packet),
            IpProtocol::Icmp if packet.from.is_ipv4() => self.route_echo(packet),
            IpProtocol::Icmpv6 if packet.from.is_ipv6() => self.route_echo(packet),
            protocol if SILENT.contains(&protocol) => {}
            _ => self.shared.unreachable(packet, Why::NoProtocol),
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
            self.deliver(token, packet);
        } else if is_new {
            self.connect(key, packet, &segment);
        } else {
            self.shared.refuse_segment(packet.whole);
        }
    }

    /// A new connection of the guest's.
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
        self.table.insert(key, Flow::Tcp(Box::new(tcp)));
    }

    fn route_datagram(&mut self, packet: &Packet<'_>) {
        let Ok(datagram) = UdpPacket::new_checked(packet.payload) else { return };
        let (guest, remote) = ends(packet, datagram.src_port(), datagram.dst_port());
        if guest.port() == 0 || remote.port() == 0 {
            return;
        }
        let key = Key { protocol: Protocol::Udp, guest, remote };
        let open = |to: IpAddr| host::socket(to, SocketType::DGRAM);
        self.route_to_flow(key, packet, open, |socket| Flow::Udp(Udp::new(guest, remote, socket)));
    }

    fn route_echo(&mut self, packet: &Packet<'_>) {
        let Some(identifier) = ping::identifier(packet) else { return };
        let (guest, remote) = ends(packet, identifier, 0);
        let key = Key { protocol: Protocol::Icmp, guest, remote };
        let flow = |socket| Flow::Ping(Ping::new(guest, remote.ip(), socket));
        self.route_to_flow(key, packet, host::echo_socket, flow);
    }

    /// To its flow of datagrams, or to a new one, whose socket `open` makes for where it goes.
    fn route_to_flow(
        &mut self,
        key: Key,
        packet: &Packet<'_>,
        open: impl Fn(IpAddr) -> Result<OwnedFd, Errno>,
        flow: impl FnOnce(OwnedFd) -> Flow,
    ) {
        if let Some(token) = self.table.find(&key) {
            return self.deliver(token, packet);
        }
        let to = match self.destination(&key) {
            Ok(to) => to,
            Err(why) => return self.shared.unreachable(packet, why.unwrap_or(Why::Prohibited)),
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
            self.end(token, End::Orderly);
            opened = connected();
        }
        let socket = match opened {
            Ok(socket) => socket,
            // As with a full table: lost.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return,
            Err(error) => return self.shared.unreachable(packet, Why::of(error)),
        };
        let flow = flow(socket);
        let watched = match &flow {
            Flow::Udp(udp) => self.watch.add(udp.host(), self.table.next_token()),
            Flow::Ping(ping) => self.watch.add(ping.host(), self.table.next_token()),
            Flow::Tcp(_) | Flow::Visitor(_) => Ok(()),
        };
        if watched.is_ok() {
            let token = self.table.insert(key, flow);
            self.deliver(token, packet);
        }
    }

    fn deliver(&mut self, token: Token, packet: &Packet<'_>) {
        let Some(flow) = self.table.get(token) else { return };
        match flow.packet(packet, &mut self.shared) {
            Ok(()) => self.table.make_ready(token),
            Err(end) => self.end(token, end),
        }
    }

    /// Where the host finds what the guest calls `key.remote`. An error is the reason why it is nowhere; without a
    /// reason, it was refused by the rules, which is noted.
    fn destination(&mut self, key: &Key) -> Result<SocketAddr, Option<Why>> {
        let Key { protocol, remote, .. } = *key;
        let address = remote.ip();
        let is_ours = is_gateway(address) || is_resolver(address);
        if !is_ours && is_on_link(address) {
            return Err(Some(Why::NoHost));
        }
        let routes = &mut self.routes;
        // Without any, no rule asks.
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
            return Err(Some(Why::NoPort));
        }
        match self.resolver {
            Resolver::At(resolver) => Ok(resolver),
            Resolver::OfHost => host::resolver().ok_or(Some(Why::NoHost)),
        }
    }
}

/// Whether `address` is one of the guest's own network, where there is nobody but us.
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
