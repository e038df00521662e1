//! DHCP (RFC 2131, options of RFC 2132). There is one address, and any client gets it.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpHardware, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpFlags, DhcpMessageType as MessageType, DhcpOpCode,
    DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UDP_HEADER_LEN,
    UdpPacket, UdpRepr,
};

use super::reply::{Answer, Reply, is_group};
use crate::addresses::{BROADCAST_V4, GATEWAY_V4, GUEST_V4, NETMASK_V4, RESOLVER_V4, can_be_destination};

pub(super) const SERVER_PORT: u16 = DHCP_SERVER_PORT;

const MAGIC: u32 = 0x6382_5363;

/// Lease time in seconds: a day. Clients renew after half of it.
const LEASE: u32 = 24 * 60 * 60;

const HOP_LIMIT: u8 = 64;

/// Options for which the codec has no field.
mod option {
    pub(super) const INTERFACE_MTU: u8 = 26;
    pub(super) const BROADCAST_ADDRESS: u8 = 28;
    pub(super) const REQUESTED_ADDRESS: u8 = 50;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER_IDENTIFIER: u8 = 54;
    pub(super) const PARAMETER_REQUEST_LIST: u8 = 55;
    pub(super) const RENEWAL_TIME: u8 = 58;
    pub(super) const REBINDING_TIME: u8 = 59;
    pub(super) const CLIENT_IDENTIFIER: u8 = 61;
}

/// Minimum length of a BOOTP message (RFC 951 §3); some clients drop shorter ones.
const SHORTEST: usize = 300;

/// Maximum length of a client identifier in the longest message that every client accepts: a 576-byte IP
/// packet, less the IP and UDP headers (RFC 2131 §2). Replies have 240 bytes before the options, 56 bytes of
/// options, and the client identifier with 2 bytes before it.
const LONGEST_CLIENT_IDENTIFIER: usize = 548 - 240 - 56 - 2;

/// A client's message.
struct Query<'a> {
    message_type: MessageType,
    /// The client's address, if it has one already.
    client_ip: Ipv4Addr,
    requested_ip: Option<Ipv4Addr>,
    server_identifier: Option<Ipv4Addr>,
    client_identifier: Option<&'a [u8]>,
    wanted: &'a [u8],
    transaction_id: u32,
    client_mac: EthernetAddress,
    broadcast: bool,
}

/// Answers discover, request and inform. Release and decline need no answer, and no lease is kept. The UDP
/// checksum isn't verified: the guest may offload it to the device.
pub(super) fn answer(packet: &Ipv4Packet<&[u8]>, mtu: u16, reply: &mut Reply<'_>) -> Answer {
    let Ok(udp) = UdpPacket::new_checked(packet.payload()) else { return Answer::Nothing };
    let Ok(message) = DhcpPacket::new_checked(udp.payload()) else { return Answer::Nothing };
    let Some(query) = Query::parse(&message) else { return Answer::Nothing };
    match query.message_type {
        MessageType::Discover => query.offer(mtu, reply),
        MessageType::Request => match query.decide() {
            Some(true) => query.acknowledge(mtu, reply),
            Some(false) => query.refuse(reply),
            None => Answer::Nothing,
        },
        MessageType::Inform => query.inform(mtu, reply),
        MessageType::Release | MessageType::Decline => Answer::Released,
        _ => Answer::Nothing,
    }
}

impl<'a> Query<'a> {
    fn parse(packet: &'a DhcpPacket<&[u8]>) -> Option<Self> {
        let is_valid = packet.opcode() == DhcpOpCode::Request
            && packet.hardware_type() == ArpHardware::Ethernet
            && packet.hardware_len() == 6
            && packet.magic_number() == MAGIC
            // There is no relay on this link.
            && packet.relay_agent_ip().is_unspecified()
            && !is_group(packet.client_hardware_address());
        if !is_valid {
            return None;
        }
        let mut query = Self {
            message_type: MessageType::Unknown(0),
            client_ip: packet.client_ip(),
            requested_ip: None,
            server_identifier: None,
            client_identifier: None,
            wanted: &[],
            transaction_id: packet.transaction_id(),
            client_mac: packet.client_hardware_address(),
            broadcast: packet.flags().contains(DhcpFlags::BROADCAST),
        };
        for option in packet.options() {
            query.take(option)?;
        }
        Some(query)
    }

    /// Stores an option. `None` if its length is invalid.
    fn take(&mut self, DhcpOption { kind, data }: DhcpOption<'a>) -> Option<()> {
        let address = || <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from_octets);
        match kind {
            option::MESSAGE_TYPE => self.message_type = MessageType::from(*data.first()?),
            option::REQUESTED_ADDRESS => self.requested_ip = Some(address()?),
            option::SERVER_IDENTIFIER => self.server_identifier = Some(address()?),
            option::PARAMETER_REQUEST_LIST => self.wanted = data,
            option::CLIENT_IDENTIFIER if data.len() > LONGEST_CLIENT_IDENTIFIER => return None,
            option::CLIENT_IDENTIFIER => self.client_identifier = Some(data),
            _ => {}
        }
        Some(())
    }

    /// Whether a request is for the guest's address (RFC 2131 §4.3.2). `None` if it is for another server or
    /// names no address.
    fn decide(&self) -> Option<bool> {
        if self.server_identifier.is_some_and(|server| server != GATEWAY_V4) {
            return None;
        }
        // Selecting or rebooting; otherwise renewing or rebinding.
        let held = Some(self.client_ip).filter(|address| !address.is_unspecified());
        Some(self.requested_ip.or(held)? == GUEST_V4)
    }

    fn offer(&self, mtu: u16, reply: &mut Reply<'_>) -> Answer {
        let to = self.destination(Ipv4Addr::UNSPECIFIED, GUEST_V4);
        let repr =
            DhcpRepr { your_ip: GUEST_V4, lease_duration: Some(LEASE), ..self.settings(MessageType::Offer) };
        self.send(repr, mtu, to, reply)
    }

    fn acknowledge(&self, mtu: u16, reply: &mut Reply<'_>) -> Answer {
        // Only the guest's own address is used as the destination; the field could hold any other.
        let held = if self.client_ip == GUEST_V4 { GUEST_V4 } else { Ipv4Addr::UNSPECIFIED };
        let repr = DhcpRepr {
            your_ip: GUEST_V4,
            client_ip: held,
            lease_duration: Some(LEASE),
            ..self.settings(MessageType::Ack)
        };
        self.send(repr, mtu, self.destination(held, GUEST_V4), reply)
    }

    /// Answers a guest with a static address: all settings except an address (RFC 2131 §4.3.5).
    fn inform(&self, mtu: u16, reply: &mut Reply<'_>) -> Answer {
        if !can_be_destination(self.client_ip.into()) {
            return Answer::Nothing;
        }
        let repr = DhcpRepr { client_ip: self.client_ip, ..self.settings(MessageType::Ack) };
        self.send(repr, mtu, self.destination(self.client_ip, self.client_ip), reply)
    }

    /// Broadcast, because the client has no usable address (RFC 2131 §4.3.2).
    fn refuse(&self, reply: &mut Reply<'_>) -> Answer {
        let additional = self.identifier_option();
        let repr = DhcpRepr { additional_options: additional.as_slice(), ..self.plain(MessageType::Nak) };
        write(&repr, (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST), reply)
    }

    /// Destination of a reply (RFC 2131 §4.1): the address that the client has (`held`); else broadcast, if
    /// the client can't receive unicast before it has an address; else the address that it gets (`given`).
    fn destination(&self, held: Ipv4Addr, given: Ipv4Addr) -> (EthernetAddress, Ipv4Addr) {
        if held.is_unspecified() && self.broadcast {
            (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST)
        } else {
            (self.client_mac, given)
        }
    }

    /// A reply with the settings that every client needs.
    fn settings(&self, message_type: MessageType) -> DhcpRepr<'static> {
        DhcpRepr {
            router: Some(GATEWAY_V4),
            subnet_mask: Some(NETMASK_V4),
            dns_servers: Some([RESOLVER_V4].into_iter().collect()),
            ..self.plain(message_type)
        }
    }

    fn plain(&self, message_type: MessageType) -> DhcpRepr<'static> {
        DhcpRepr {
            message_type,
            transaction_id: self.transaction_id,
            secs: 0,
            client_hardware_address: self.client_mac,
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: self.broadcast,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(GATEWAY_V4),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        }
    }

    /// Adds the MTU, requested options and the client identifier, and sends the reply.
    fn send(
        &self,
        repr: DhcpRepr<'_>,
        mtu: u16,
        to: (EthernetAddress, Ipv4Addr),
        reply: &mut Reply<'_>,
    ) -> Answer {
        let mtu = mtu.to_be_bytes();
        let broadcast = BROADCAST_V4.octets();
        // Half and seven eighths of the lease, the client's default values (RFC 2131 §4.4.5).
        let renewal = (LEASE / 2).to_be_bytes();
        let rebinding = (LEASE / 8 * 7).to_be_bytes();
        let mut additional = vec![DhcpOption { kind: option::INTERFACE_MTU, data: &mtu }];
        let is_wanted = |kind: u8| self.wanted.contains(&kind);
        if is_wanted(option::BROADCAST_ADDRESS) {
            additional.push(DhcpOption { kind: option::BROADCAST_ADDRESS, data: &broadcast });
        }
        if is_wanted(option::RENEWAL_TIME) && repr.lease_duration.is_some() {
            additional.push(DhcpOption { kind: option::RENEWAL_TIME, data: &renewal });
        }
        if is_wanted(option::REBINDING_TIME) && repr.lease_duration.is_some() {
            additional.push(DhcpOption { kind: option::REBINDING_TIME, data: &rebinding });
        }
        additional.extend(self.identifier_option());
        write(&DhcpRepr { additional_options: &additional, ..repr }, to, reply)
    }

    /// The client identifier is returned to the client (RFC 6842).
    fn identifier_option(&self) -> Option<DhcpOption<'a>> {
        self.client_identifier.map(|data| DhcpOption { kind: option::CLIENT_IDENTIFIER, data })
    }
}

fn write(repr: &DhcpRepr<'_>, to: (EthernetAddress, Ipv4Addr), reply: &mut Reply<'_>) -> Answer {
    let len = repr.buffer_len().max(SHORTEST);
    let (mac, address) = to;
    let ip = Ipv4Repr {
        src_addr: GATEWAY_V4,
        dst_addr: address,
        next_header: IpProtocol::Udp,
        payload_len: UDP_HEADER_LEN + len,
        hop_limit: HOP_LIMIT,
    };
    let udp = UdpRepr { src_port: SERVER_PORT, dst_port: DHCP_CLIENT_PORT };
    let out = reply.ipv4(mac, &ip);
    let mut is_written = false;
    udp.emit(
        &mut UdpPacket::new_unchecked(out),
        &GATEWAY_V4.into(),
        &address.into(),
        len,
        |message| is_written = repr.emit(&mut DhcpPacket::new_unchecked(message)).is_ok(),
        &ChecksumCapabilities::default(),
    );
    if is_written { Answer::Reply } else { Answer::Nothing }
}
