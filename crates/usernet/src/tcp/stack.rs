//! smoltcp, used so that the cost per packet doesn't depend on the number of flows: one interface for all, a
//! socket set per connection, and a device that holds one packet for one call.

use std::time::Instant;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::wire::HardwareAddress;

/// Buffer size per connection and direction, in bytes: four segments of maximum size are in flight while the
/// guest acknowledges the first.
pub(crate) const RING_LEN: usize = 256 << 10;

/// Unused endpoints kept, with their memory, for the next connection: enough for successive connections, or
/// for one that is quiet now and then.
const SPARE: usize = 1;

/// Number of endpoints in use above which an idle connection releases its own at once. Otherwise all
/// connections opened within the quiet time would have one each, and an allocator may keep freed memory in
/// pieces of this size (glibc does, after the first is freed).
const CROWD: usize = 32;

/// A TCP socket in a set of its own.
#[derive(Debug)]
pub(crate) struct Endpoint {
    set: SocketSet<'static>,
    handle: SocketHandle,
}

impl Endpoint {
    fn new() -> Self {
        // Newly allocated zeroed memory has no pages until it is written to.
        let mut socket =
            Socket::new(SocketBuffer::new(vec![0; RING_LEN]), SocketBuffer::new(vec![0; RING_LEN]));
        socket.set_nagle_enabled(false);
        // No delay: an acknowledgement isn't sent before the guest has taken earlier frames anyway.
        socket.set_ack_delay(None);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Self { set, handle }
    }

    pub(crate) fn socket(&self) -> &Socket<'static> {
        self.set.get(self.handle)
    }

    pub(crate) fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(self.handle)
    }
}

/// smoltcp state that all connections share.
pub(crate) struct Stack {
    interface: Interface,
    /// Empty: packets for it are answered with a reset.
    no_sockets: SocketSet<'static>,
    mtu: usize,
    epoch: Instant,
    spare: Vec<Endpoint>,
    in_use: usize,
}

impl Stack {
    /// `seed` makes sequence numbers hard to guess.
    pub(crate) fn new(mtu: usize, seed: u64) -> Self {
        let epoch = Instant::now();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut device = OnePacket { mtu, incoming: None, room: &mut [], sent: 0 };
        let mut interface = Interface::new(config, &mut device, smoltcp::time::Instant::ZERO);
        // Accept packets to any destination.
        interface.set_any_ip(true);
        Self { interface, no_sockets: SocketSet::new(Vec::new()), mtu, epoch, spare: Vec::new(), in_use: 0 }
    }

    /// A closed endpoint.
    pub(crate) fn endpoint(&mut self) -> Endpoint {
        self.in_use += 1;
        self.spare.pop().unwrap_or_else(Endpoint::new)
    }

    /// Whether there are so many endpoints that idle connections should release theirs.
    pub(crate) fn is_crowded(&self) -> bool {
        self.in_use > CROWD
    }

    /// Number of endpoints in use, for tests.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        self.in_use
    }

    /// Takes back an endpoint. Its peer isn't notified.
    pub(crate) fn give_back(&mut self, mut endpoint: Endpoint) {
        self.in_use -= 1;
        if self.spare.len() < SPARE {
            let socket = endpoint.socket_mut();
            socket.abort();
            // Listening discards all state of the connection, including the pending reset.
            let _ = socket.listen(1);
            socket.close();
            socket.set_timeout(None);
            self.spare.push(endpoint);
        }
    }

    /// Passes `packet` to the endpoint. Returns the length of its answer in `room`, if there is one.
    pub(crate) fn ingress(
        &mut self,
        endpoint: &mut Endpoint,
        packet: &[u8],
        room: &mut [u8],
    ) -> Option<usize> {
        let mut device = OnePacket { mtu: self.mtu, incoming: Some(packet), room, sent: 0 };
        self.interface.poll_ingress_single(now(self.epoch), &mut device, &mut endpoint.set);
        (device.sent > 0).then_some(device.sent)
    }

    /// Passes `packet` to no socket. Returns the length of the resulting reset in `room`, if there is one.
    pub(crate) fn refuse(&mut self, packet: &[u8], room: &mut [u8]) -> Option<usize> {
        let mut device = OnePacket { mtu: self.mtu, incoming: Some(packet), room, sent: 0 };
        self.interface.poll_ingress_single(now(self.epoch), &mut device, &mut self.no_sockets);
        (device.sent > 0).then_some(device.sent)
    }

    /// Writes the endpoint's next packet to `room`, which holds a packet of the MTU, and returns its length.
    pub(crate) fn egress(&mut self, endpoint: &mut Endpoint, room: &mut [u8]) -> Option<usize> {
        let mut device = OnePacket { mtu: self.mtu, incoming: None, room, sent: 0 };
        self.interface.poll_egress(now(self.epoch), &mut device, &mut endpoint.set);
        (device.sent > 0).then_some(device.sent)
    }

    /// When the endpoint next has something to do on its own; at once if that is in the past.
    pub(crate) fn next_turn(&mut self, endpoint: &Endpoint) -> Option<Instant> {
        let at = self.interface.poll_at(now(self.epoch), &endpoint.set)?;
        let micros = u64::try_from(at.total_micros()).unwrap_or(0);
        Some(self.epoch + std::time::Duration::from_micros(micros))
    }

    /// The context that `connect` needs to choose a sequence number.
    pub(crate) fn context(&mut self) -> &mut smoltcp::iface::Context {
        self.interface.context()
    }
}

fn now(epoch: Instant) -> smoltcp::time::Instant {
    // Round up to the next microsecond, so that what is due within the current one counts as due.
    smoltcp::time::Instant::from_micros(
        i64::try_from(epoch.elapsed().as_micros()).unwrap_or(i64::MAX - 1) + 1,
    )
}

/// A device with at most one incoming packet, and room for one outgoing packet.
struct OnePacket<'a> {
    mtu: usize,
    incoming: Option<&'a [u8]>,
    room: &'a mut [u8],
    sent: usize,
}

impl Device for OnePacket<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing { room: self.room, sent: &mut self.sent }))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        (self.sent == 0).then_some(Outgoing { room: self.room, sent: &mut self.sent })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.max_burst_size = Some(1);
        // TCP checksums are filled in when the packet is complete (`packet::finish_checksum`). The guest's
        // aren't verified, since it may offload them. The IP header's has been verified.
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities
    }
}

/// The received packet.
struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for the packet to send, and the length of what was written there.
struct Outgoing<'a> {
    room: &'a mut [u8],
    sent: &'a mut usize,
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        match self.room.get_mut(..len) {
            Some(room) => {
                *self.sent = len;
                f(room)
            }
            // Dropped, as a link drops frames that are too long.
            None => f(&mut vec![0; len]),
        }
    }
}
