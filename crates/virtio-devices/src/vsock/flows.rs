//! All connections, and which of them have packets for the guest.
//!
//! ```text
//!  transmitq --> take: parse, find the connection --> its socket, or what it keeps
//!  receiveq  <-- give: resets first, then one packet of each connection in turn <-- ready <-- wake: poll
//! ```
//!
//! Packets for the guest are created when it has a buffer for them. Until then, there is an entry in `ready`
//! per connection and a bounded list of resets for unknown connections: a guest without buffers can't make
//! anything grow.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_send_buffer_size;
use vmm_hostio::IoSlices;
use vmm_virtio::{Chain, Counters, Fault, Step, Undelivered};

use super::connection::{Connection, Key, NoRoom, Stage, Verdict};
use super::listener::Listener;
use super::packet::{HEADER_LEN, HOST_CID, Header, Op, Packet, Refusal, TYPE_STREAM, parse};
use super::poll::Poll;

/// Credit given to the guest per connection, which is also the size of Linux's socket buffers
/// (net.core.wmem_default). The monitor may have to keep this much of the guest's data.
const PROMISE: u32 = 256 << 10;
/// Credit per connection when [`PROMISES_MAX`] bytes have been given to others, so that all connections
/// together keep less than 64 + 64 MiB. The kernel's buffers of such a connection are reduced to the same
/// size; otherwise 4096 of 208 KiB would use 832 MiB of the host's memory.
const SMALL_PROMISE: u32 = 16 << 10;
const PROMISES_MAX: u64 = 64 << 20;
/// Maximum number of resets that wait for a buffer of the guest. Further ones are dropped, and the guest's
/// connect() times out. Refusing packets from such a guest instead could deadlock: Linux doesn't provide
/// buffers while its own replies can't be sent (net/vmw_vsock/virtio_transport.c,
/// virtio_transport_more_replies).
const RESETS_MAX: usize = 4096;
/// First port for host connections, as in Firecracker; lower ones are for services.
pub(super) const PORTS: u32 = 1 << 30;

/// How long a guest program waits for a host program with a full backlog: as long as Linux's connect()
/// (vsock(7), VSOCK_DEFAULT_CONNECT_TIMEOUT).
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a host program waits for the guest's response, which comes from the guest's kernel.
const RESPONSE_PATIENCE: Duration = Duration::from_secs(10);
/// How long the guest may take to close a connection that the host has closed.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);

/// All connections, see the module's documentation.
pub(super) struct Flows {
    cid: u32,
    most: usize,
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_key: HashMap<Key, usize>,
    /// Slots in the order in which they get a buffer.
    ready: VecDeque<usize>,
    resets: VecDeque<Header>,
    next_port: u32,
    promised: u64,
    /// Some connection may have a deadline.
    has_deadlines: bool,
    slices: IoSlices,
}

#[derive(Debug, Default)]
struct Slot {
    connection: Option<Connection>,
    /// It is in `ready`. A property of the slot rather than its connection, so that opening and closing
    /// connections doesn't make the list grow.
    is_listed: bool,
}

/// The device's state that a flow works with.
#[derive(Clone, Copy)]
pub(super) struct Host<'a> {
    pub(super) listener: &'a Listener,
    pub(super) poll: &'a Poll,
    pub(super) counters: &'a Counters,
    pub(super) now: Instant,
}

impl Flows {
    /// For a guest with this context id, whose queues have `queue_size` descriptors. It may have `most`
    /// connections at a time.
    pub(super) fn new(cid: u32, queue_size: u16, most: usize) -> Self {
        Self {
            cid,
            most,
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            next_port: 0,
            promised: 0,
            has_deadlines: false,
            slices: IoSlices::with_capacity(queue_size.into()),
        }
    }

    /// Where the numbering of the host's ports continues, less than [`PORTS`].
    pub(super) fn next_port(&self) -> u32 {
        self.next_port
    }

    /// Continues the numbering there.
    pub(super) fn set_next_port(&mut self, next_port: u32) {
        self.next_port = next_port;
    }

    /// Ends all connections without notifying the guest, which has no state of them. Those with data for the host
    /// last until it is delivered.
    pub(super) fn clear(&mut self) {
        (0..self.slots.len()).for_each(|slot| self.end(slot));
        self.resets.clear();
    }

    /// The connections with data that the host hasn't taken.
    pub(super) fn undelivered(&self) -> Vec<Undelivered> {
        let connections = self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        let kept = connections.filter(|connection| connection.kept_len() > 0);
        kept.map(|connection| {
            let Key { host_port, guest_port } = connection.key;
            let (connection, len) = (
                format!("connection of guest port {guest_port} and host port {host_port}"),
                connection.kept_len(),
            );
            Undelivered { connection, len: len as u64, sent_len: 0 }
        })
        .collect()
    }

    /// Whether there is no packet for the guest.
    pub(super) fn is_idle(&self) -> bool {
        self.resets.is_empty() && self.ready.is_empty()
    }

    pub(super) fn has_deadlines(&self) -> bool {
        self.has_deadlines
    }

    /// Handles a packet from the guest.
    ///
    /// # Errors
    /// The guest's memory can't be accessed.
    pub(super) fn take(&mut self, chain: &Chain<'_>, host: Host<'_>) -> Result<(), Fault> {
        host.counters.requests.add(1);
        let packet = match parse(chain, self.cid) {
            Ok(packet) => packet,
            Err(refusal) => {
                host.counters.errors.add(1);
                self.refuse(refusal, host);
                return Ok(());
            }
        };
        let Packet { header, op, data } = packet;
        let Some(&slot) = self.by_key.get(&key_of(&header)) else {
            match op {
                Op::Request => self.open_for_guest(&header, host),
                // A reset isn't answered with another one.
                Op::Rst => {}
                _ => self.push_reset(&header, host),
            }
            return Ok(());
        };
        let Some(connection) = self.slots[slot].connection.as_mut() else { return Ok(()) };
        let verdict = connection.take(op, &header, &data, &mut self.slices)?;
        if verdict == Verdict::Keep {
            host.counters.bytes_out.add(data.len());
        }
        self.settle(slot, verdict, host);
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal, host: Host<'_>) {
        match refusal {
            Refusal::Drop => {}
            Refusal::Stray(header) => self.push_reset(&header, host),
            Refusal::Broken(header) => {
                if let Some(&slot) = self.by_key.get(&key_of(&header)) {
                    self.end(slot);
                }
                self.push_reset(&header, host);
            }
        }
    }

    fn push_reset(&mut self, header: &Header, host: Host<'_>) {
        if self.resets.len() == RESETS_MAX {
            host.counters.errors.add(1);
            return;
        }
        self.resets.push_back(header.reset());
    }

    /// Fills a chain with the next packet for the guest. [`Step::Full`] if there is none.
    ///
    /// # Errors
    /// The guest's memory can't be accessed.
    pub(super) fn give(&mut self, chain: &Chain<'_>, host: Host<'_>) -> Result<Step, Fault> {
        let Some((head, room)) = chain.writable().split_at(HEADER_LEN as u64) else {
            // The chain is too short; it is returned so that it doesn't block the next one.
            host.counters.errors.add(1);
            return Ok(Step::Used(0));
        };
        if let Some(reset) = self.resets.pop_front() {
            head.write(&reset.to_bytes())?;
            return Ok(Step::Used(HEADER_LEN as u32));
        }
        while let Some(slot) = self.ready.pop_front() {
            self.slots[slot].is_listed = false;
            let Some(connection) = self.slots[slot].connection.as_mut() else { continue };
            let header = match connection.give(&room, &mut self.slices) {
                Ok(Some(header)) => header,
                Ok(None) => continue,
                Err(NoRoom) => {
                    self.list(slot);
                    host.counters.errors.add(1);
                    return Ok(Step::Used(0));
                }
            };
            let Key { host_port, guest_port } = connection.key;
            let header = Header {
                src_cid: HOST_CID,
                dst_cid: self.cid.into(),
                src_port: host_port,
                dst_port: guest_port,
                kind: TYPE_STREAM,
                ..header
            };
            if connection.is_over() && connection.deadline.is_none() {
                self.set_deadline(slot, host.now + SHUTDOWN_PATIENCE);
            }
            self.list_if_ready(slot);
            host.counters.bytes_in.add(header.len.into());
            head.write(&header.to_bytes())?;
            // At most 64 KiB of data.
            return Ok(Step::Used(HEADER_LEN as u32 + header.len));
        }
        Ok(Step::Full)
    }

    /// Handles an event of a connection's socket.
    pub(super) fn wake(&mut self, slot: usize, is_hung_up: bool, host: Host<'_>) {
        let connection = self.slots.get_mut(slot).and_then(|slot| slot.connection.as_mut());
        let Some(verdict) = connection.map(|connection| connection.wake(is_hung_up)) else { return };
        self.settle(slot, verdict, host);
    }

    /// Opens a connection from a host client to a port of the guest. Returns its slot; `None` if there is no
    /// room, and the client is closed.
    pub(super) fn open_for_host(
        &mut self,
        socket: UnixStream,
        guest_port: u32,
        now: Instant,
    ) -> Option<usize> {
        let key = Key { host_port: self.fresh_port(guest_port), guest_port };
        let promise = self.promise();
        shorten(&socket, promise);
        let slot = self.insert(Connection::requested(key, socket, promise))?;
        self.set_deadline(slot, now + RESPONSE_PATIENCE);
        self.list(slot);
        Some(slot)
    }

    /// Opens a connection from the guest to a port of the host.
    fn open_for_guest(&mut self, request: &Header, host: Host<'_>) {
        let promise = self.promise();
        let Some(slot) = self.insert(Connection::connecting(key_of(request), request, promise)) else {
            host.counters.errors.add(1);
            return self.push_reset(request, host);
        };
        self.set_deadline(slot, host.now + CONNECT_PATIENCE);
        self.connect(slot, host);
    }

    /// Tries once to connect to the host program. If its backlog is full, the connection stays as it is.
    fn connect(&mut self, slot: usize, host: Host<'_>) {
        let Some(connection) = self.slots[slot].connection.as_mut() else { return };
        let socket = match host.listener.connect(connection.key.host_port) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(socket) => host.poll.add(&socket, slot).map(|()| socket),
            Err(error) => Err(error),
        };
        match socket {
            Ok(socket) => {
                shorten(&socket, connection.buf_alloc());
                connection.connected(socket);
                self.list(slot);
            }
            Err(_) => {
                host.counters.errors.add(1);
                self.settle(slot, Verdict::Reset, host);
            }
        }
    }

    /// Ends connections whose deadline has passed.
    pub(super) fn expire(&mut self, host: Host<'_>) {
        self.has_deadlines = false;
        for slot in 0..self.slots.len() {
            let Some(connection) = &self.slots[slot].connection else { continue };
            let Some(deadline) = connection.deadline else { continue };
            if connection.stage == Stage::Connecting {
                self.connect(slot, host);
            }
            let connection = self.slots[slot].connection.as_ref();
            if connection.is_some_and(|connection| connection.deadline.is_some()) {
                self.has_deadlines = true;
                if host.now >= deadline {
                    self.settle(slot, Verdict::Reset, host);
                }
            }
        }
    }

    /// Restarts deadlines after a pause of the machine.
    pub(super) fn refresh(&mut self, now: Instant) {
        let connections = self.slots.iter_mut().filter_map(|slot| slot.connection.as_mut());
        let deadlines = connections.filter_map(|connection| connection.deadline.as_mut());
        deadlines.for_each(|deadline| *deadline = now + RESPONSE_PATIENCE);
    }

    /// Applies a verdict.
    fn settle(&mut self, slot: usize, verdict: Verdict, host: Host<'_>) {
        let Some(connection) = &self.slots[slot].connection else { return };
        let key = connection.key;
        match verdict {
            Verdict::Keep => return self.list_if_ready(slot),
            Verdict::Refuse => host.counters.errors.add(1),
            Verdict::Reset | Verdict::Close => {}
        }
        self.end(slot);
        if verdict != Verdict::Close {
            let Key { host_port, guest_port } = key;
            let (src_cid, kind) = (self.cid.into(), TYPE_STREAM);
            // As for a packet from the guest.
            let header =
                Header { src_cid, src_port: guest_port, dst_port: host_port, kind, ..Header::default() };
            self.push_reset(&header, host);
        }
    }

    fn insert(&mut self, connection: Connection) -> Option<usize> {
        if self.free.is_empty() {
            if self.slots.len() >= self.most {
                return None;
            }
            self.free.push(self.slots.len());
            self.slots.push(Slot::default());
        }
        let slot = self.free.pop()?;
        self.promised += u64::from(connection.buf_alloc());
        self.by_key.insert(connection.key, slot);
        self.slots[slot].connection = Some(connection);
        Some(slot)
    }

    /// Closes it, now or when the host has received all data; its ports are free at once.
    fn end(&mut self, slot: usize) {
        let Some(connection) = &mut self.slots[slot].connection else { return };
        if connection.orphan() { self.forget(slot) } else { self.close(slot) }
    }

    /// Closing the socket also removes it from the poll.
    pub(super) fn close(&mut self, slot: usize) {
        self.forget(slot);
        if let Some(connection) = self.slots[slot].connection.take() {
            self.promised -= u64::from(connection.buf_alloc());
            self.free.push(slot);
        }
    }

    /// Frees its ports.
    fn forget(&mut self, slot: usize) {
        let Some(connection) = &self.slots[slot].connection else { return };
        if self.by_key.get(&connection.key) == Some(&slot) {
            self.by_key.remove(&connection.key);
        }
    }

    fn set_deadline(&mut self, slot: usize, deadline: Instant) {
        self.has_deadlines = true;
        if let Some(connection) = &mut self.slots[slot].connection {
            connection.deadline = Some(deadline);
        }
    }

    fn list_if_ready(&mut self, slot: usize) {
        if self.slots[slot].connection.as_ref().is_some_and(Connection::has_news) {
            self.list(slot);
        }
    }

    fn list(&mut self, slot: usize) {
        if !std::mem::replace(&mut self.slots[slot].is_listed, true) {
            self.ready.push_back(slot);
        }
    }

    fn promise(&self) -> u32 {
        if self.promised + u64::from(PROMISE) <= PROMISES_MAX { PROMISE } else { SMALL_PROMISE }
    }

    /// A port of ours that isn't connected to this port of the guest.
    fn fresh_port(&mut self, guest_port: u32) -> u32 {
        loop {
            let host_port = PORTS | self.next_port;
            self.next_port = (self.next_port + 1) % PORTS;
            // There are more ports than connections.
            if !self.by_key.contains_key(&Key { host_port, guest_port }) {
                return host_port;
            }
        }
    }
}

impl Flows {
    /// The socket of a connection, if any.
    pub(super) fn socket(&self, slot: usize) -> Option<&UnixStream> {
        self.slots.get(slot)?.connection.as_ref()?.socket()
    }
}

/// Reduces the kernel's buffer for the host program to the guest's credit, if that is small.
fn shorten(socket: &UnixStream, promise: u32) {
    if promise == SMALL_PROMISE {
        // Linux accepts any length.
        let _ = set_socket_send_buffer_size(socket, promise as usize);
    }
}

fn key_of(header: &Header) -> Key {
    Key { host_port: header.dst_port, guest_port: header.src_port }
}
