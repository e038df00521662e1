//! smoltcp, used so that a packet costs the same however many flows there are: one interface for all, a set of one socket
//! for each connection, and a device that holds one packet for one call.

use std::time::Instant;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::wire::HardwareAddress;

/// Bytes that a connection holds for each direction at most: four segments of the largest size are under way while the
/// guest acknowledges the first.
pub(crate) const RING_LEN: usize = 256 << 10;

/// Endpoints without a connection that are kept for the next one, with their memory: one connection after the other, or
/// one that is quiet now and then, needs one.
const SPARE: usize = 1;

/// Endpoints in use from which on a connection without anything to do gives its own back at once. Without that, as many
/// connections as open within the time that each may keep it have one each; and what an allocator was given back in pieces of
/// this size it may keep for itself (glibc does, once it has had one back).
const CROWD: usize = 32;

/// A TCP socket in a set of its own.
#[derive(Debug)]
pub(crate) struct Endpoint {
    set: SocketSet<'static>,
    handle: SocketHandle,
}

impl Endpoint {
    fn new() -> Self {
        // Zeroed memory that is new to the process has no pages until it is written to.
        let mut socket =
            Socket::new(SocketBuffer::new(vec![0; RING_LEN]), SocketBuffer::new(vec![0; RING_LEN]));
        socket.set_nagle_enabled(false);
        // An acknowledgement leaves when the guest has taken what it sent before: that is delay enough.
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

/// What all connections share of smoltcp.
pub(crate) struct Stack {
    interface: Interface,
    /// No socket: what comes here is answered with a reset.
    nobody: SocketSet<'static>,
    mtu: usize,
    epoch: Instant,
    spare: Vec<Endpoint>,
    in_use: usize,
}

impl Stack {
    /// `seed` makes the sequence numbers hard to guess.
    pub(crate) fn new(mtu: usize, seed: u64) -> Self {
        let epoch = Instant::now();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut device = OnePacket { mtu, incoming: None, room: &mut [], sent: 0 };
        let mut interface = Interface::new(config, &mut device, smoltcp::time::Instant::ZERO);
        // Every destination is ours to answer for.
        interface.set_any_ip(true);
        Self { interface, nobody: SocketSet::new(Vec::new()), mtu, epoch, spare: Vec::new(), in_use: 0 }
    }

    /// A closed endpoint.
    pub(crate) fn endpoint(&mut self) -> Endpoint {
        self.in_use += 1;
        self.spare.pop().unwrap_or_else(Endpoint::new)
    }

    /// Whether so many endpoints are in use that those without anything to do are wanted back.
    pub(crate) fn is_crowded(&self) -> bool {
        self.in_use > CROWD
    }

    /// How many are in use, for tests.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        self.in_use
    }

    /// Takes an endpoint back. Whatever it was connected to hears nothing of that.
    pub(crate) fn give_back(&mut self, mut endpoint: Endpoint) {
        self.in_use -= 1;
        if self.spare.len() < SPARE {
            let socket = endpoint.socket_mut();
            socket.abort();
            // Listening forgets all of the connection before, the reset that was to be sent as well.
            let _ = socket.listen(1);
            socket.close();
            socket.set_timeout(None);
            self.spare.push(endpoint);
        }
    }

    /// Hands `packet` to the endpoint. Returns the length of its answer, if it has one, in `room`.
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

    /// Hands `packet` to nobody. Returns the length of the reset that answers it, if one does, in `room`.
    pub(crate) fn refuse(&mut self, packet: &[u8], room: &mut [u8]) -> Option<usize> {
        let mut device = OnePacket { mtu: self.mtu, incoming: Some(packet), room, sent: 0 };
        self.interface.poll_ingress_single(now(self.epoch), &mut device, &mut self.nobody);
        (device.sent > 0).then_some(device.sent)
    }

    /// Writes the endpoint's next packet to `room`, which holds a packet of the MTU, and returns its length.
    pub(crate) fn egress(&mut self, endpoint: &mut Endpoint, room: &mut [u8]) -> Option<usize> {
        let mut device = OnePacket { mtu: self.mtu, incoming: None, room, sent: 0 };
        self.interface.poll_egress(now(self.epoch), &mut device, &mut endpoint.set);
        (device.sent > 0).then_some(device.sent)
    }

    /// When the endpoint has something to do without being told: at once, if that is in the past.
    pub(crate) fn next_turn(&mut self, endpoint: &Endpoint) -> Option<Instant> {
        let at = self.interface.poll_at(now(self.epoch), &endpoint.set)?;
        let micros = u64::try_from(at.total_micros()).unwrap_or(0);
        Some(self.epoch + std::time::Duration::from_micros(micros))
    }

    /// What `connect` needs to choose a sequence number.
    pub(crate) fn context(&mut self) -> &mut smoltcp::iface::Context {
        self.interface.context()
    }
}

fn now(epoch: Instant) -> smoltcp::time::Instant {
    // A microsecond more than the clock shows: what was due at a microsecond's fraction is due then.
    smoltcp::time::Instant::from_micros(
        i64::try_from(epoch.elapsed().as_micros()).unwrap_or(i64::MAX - 1) + 1,
    )
}

/// A device with one packet to give and room to take one.
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
        = Room<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming<'_>, Room<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Room { room: self.room, sent: &mut self.sent }))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Room<'_>> {
        (self.sent == 0).then_some(Room { room: self.room, sent: &mut self.sent })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.max_burst_size = Some(1);
        // TCP's is filled in when the packet is whole (`packet::finish_checksum`); the guest's isn't looked at, since it
        // may leave it to us. The IP header's was checked before.
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities
    }
}

struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Room<'a> {
    room: &'a mut [u8],
    sent: &'a mut usize,
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        match self.room.get_mut(..len) {
            Some(room) => {
                *self.sent = len;
                f(room)
            }
            // Dropped, as a wire drops what is too long for it.
            None => f(&mut vec![0; len]),
        }
    }
}
