//! One connection: a host socket and a flow of packets.
//!
//! ```text
//!  the host:  CONNECT  --> Requested --RESPONSE--> Established --+-- both directions over, RST --> gone
//!  the guest: REQUEST  --> Connecting --connect--> Established --+-- RST, or the guest is gone,
//!                                                                    with data kept --> Orphaned --> gone
//! ```
//!
//! Data from the guest is written to the socket directly; what the socket doesn't accept is kept here, up to
//! the credit given to the guest. Data from the host stays in the socket until the guest has a buffer for it.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::net::{SendFlags, send};
use vmm_hostio::IoSlices;
use vmm_virtio::{Buffers, Fault};

use super::credit::Credit;
use super::packet::{Header, Op, SHUT_BOTH, SHUT_RECEIVE, SHUT_SEND};

/// Maximum data per packet to the guest in bytes, which is Linux's limit (include/linux/virtio_vsock.h,
/// VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
const DATA_MAX: u32 = 64 << 10;
/// Bytes copied at a time of data that the host doesn't accept.
const PIECE_LEN: usize = 4096;

/// The two ports of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
}

/// State of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Requested by the guest; the host program's backlog is full.
    Connecting,
    /// Requested by the host; the guest hasn't responded.
    Requested,
    /// Data flows in both directions.
    Established,
    /// It has ended for the guest, but the host hasn't received all data.
    Orphaned,
}

/// Consequence of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    /// It continues.
    Keep,
    /// It has ended, and the guest must be notified.
    Reset,
    /// As `Reset`, because the guest has violated the protocol.
    Refuse,
    /// It has ended, and the guest knows.
    Close,
}

/// Packets without data that wait for a buffer of the guest.
#[derive(Debug, Default)]
struct DuePackets {
    /// REQUEST or RESPONSE.
    opening: Option<Op>,
    credit_update: bool,
    credit_request: bool,
}

/// A connection, see the module's documentation.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) stage: Stage,
    /// When it is given up unless something happens.
    pub(super) deadline: Option<Instant>,
    /// `None` while it is [`Stage::Connecting`].
    socket: Option<UnixStream>,
    credit: Credit,
    /// Data from the guest that the socket hasn't accepted.
    kept: VecDeque<u8>,
    due: DuePackets,
    /// Closed directions as SHUT_ bits: by the guest, by the host, and what the guest knows of the latter.
    guest_shut: u32,
    host_shut: u32,
    told_shut: u32,
    /// The socket may be readable or writable, as far as known.
    is_readable: bool,
    is_writable: bool,
    /// The host's end is closed.
    is_hung_up: bool,
    /// A credit request was sent since the guest last gave credit.
    has_asked: bool,
    /// The host was notified that the guest sends no more data.
    has_finished: bool,
}

impl Connection {
    fn new(key: Key, stage: Stage, socket: Option<UnixStream>, buf_alloc: u32) -> Self {
        Self {
            key,
            stage,
            deadline: None,
            socket,
            credit: Credit::new(buf_alloc),
            kept: VecDeque::new(),
            due: DuePackets::default(),
            guest_shut: 0,
            host_shut: 0,
            told_shut: 0,
            is_readable: true,
            is_writable: true,
            is_hung_up: false,
            has_asked: false,
            has_finished: false,
        }
    }

    /// A connection requested by the host.
    pub(super) fn requested(key: Key, socket: UnixStream, buf_alloc: u32) -> Self {
        let mut connection = Self::new(key, Stage::Requested, Some(socket), buf_alloc);
        connection.due.opening = Some(Op::Request);
        connection
    }

    /// A connection requested by the guest with this packet.
    pub(super) fn connecting(key: Key, request: &Header, buf_alloc: u32) -> Self {
        let mut connection = Self::new(key, Stage::Connecting, None, buf_alloc);
        connection.credit.learn(request);
        connection
    }

    /// The host program has accepted it.
    pub(super) fn connected(&mut self, socket: UnixStream) {
        (self.socket, self.stage, self.deadline) = (Some(socket), Stage::Established, None);
        self.due.opening = Some(Op::Response);
    }

    pub(super) fn socket(&self) -> Option<&UnixStream> {
        self.socket.as_ref()
    }

    /// The credit given to the guest.
    pub(super) fn buf_alloc(&self) -> u32 {
        self.credit.buf_alloc()
    }

    /// Handles a packet from the guest, moving its data through `slices`.
    ///
    /// # Errors
    /// The guest's memory can't be accessed.
    pub(super) fn take(
        &mut self,
        op: Op,
        header: &Header,
        data: &Buffers<'_>,
        slices: &mut IoSlices,
    ) -> Result<Verdict, Fault> {
        self.credit.learn(header);
        // Cleared only when there is credit: a guest answers a request with its current state, and would
        // otherwise be asked again endlessly.
        self.has_asked &= self.credit.peer_room() == 0;
        Ok(match (op, self.stage) {
            (Op::Rst, _) => Verdict::Close,
            (Op::Response, Stage::Requested) => self.accepted(),
            (Op::Rw, Stage::Established) => return self.receive(data, slices),
            (Op::Shutdown, Stage::Established) => self.shut(header.flags),
            (Op::CreditUpdate, _) => Verdict::Keep,
            (Op::CreditRequest, _) => {
                self.due.credit_update = true;
                Verdict::Keep
            }
            // A second REQUEST or RESPONSE, or data before the connection is established.
            _ => Verdict::Refuse,
        })
    }

    /// The guest has accepted it: the client is sent the host's port, as by Firecracker.
    fn accepted(&mut self) -> Verdict {
        (self.stage, self.deadline) = (Stage::Established, None);
        let line = format!("OK {}\n", self.key.host_port);
        let Some(socket) = &self.socket else { return Verdict::Reset };
        // The socket's buffer is empty, so it accepts the whole line.
        match send(socket, line.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(len) if len == line.len() => Verdict::Keep,
            _ => Verdict::Reset,
        }
    }

    /// It has ended for the guest: by a reset, by a violation of the protocol, or with the guest itself. Data that
    /// the guest regards as sent is still delivered: returns whether there is any, and the host's program can't
    /// write to the connection any more.
    pub(super) fn orphan(&mut self) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        self.shut_socket(Shutdown::Read);
        (self.stage, self.deadline, self.due) = (Stage::Orphaned, None, DuePackets::default());
        self.guest_shut = SHUT_BOTH;
        true
    }

    /// Number of bytes from the guest that the host hasn't taken.
    pub(super) fn kept_len(&self) -> usize {
        self.kept.len()
    }

    fn receive(&mut self, data: &Buffers<'_>, slices: &mut IoSlices) -> Result<Verdict, Fault> {
        // At most the header's length, which has 32 bits.
        let len = data.len() as u32;
        if self.guest_shut & SHUT_SEND != 0 || !self.credit.receive(len) {
            return Ok(Verdict::Refuse);
        }
        let mut rest = *data;
        if self.kept.is_empty() && self.host_shut & SHUT_RECEIVE == 0 {
            let sent = self.pass_on(data, slices);
            rest = data.split_at(sent).map_or(rest, |(_, rest)| rest);
        }
        if self.host_shut & SHUT_RECEIVE != 0 {
            // Nothing will receive it.
            self.credit.forward(rest.len() as u32);
        } else {
            self.keep(rest)?;
        }
        // If the data had more pieces than one system call takes, all of it is kept here now, and no event
        // will follow.
        Ok(if self.is_writable && !self.kept.is_empty() { self.flush() } else { Verdict::Keep })
    }

    /// Writes data to the socket, and returns how much it accepted.
    fn pass_on(&mut self, data: &Buffers<'_>, slices: &mut IoSlices) -> u64 {
        let Some(socket) = self.socket.as_ref().filter(|_| self.is_writable && !data.is_empty()) else {
            return 0;
        };
        if slices.fill(data).is_err() {
            return 0;
        }
        let (mut sent, mut outcome) = (0, Ok(()));
        while outcome.is_ok() && !slices.is_empty() {
            match slices.send_to(socket) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => outcome = Err(error),
            }
        }
        slices.clear();
        self.credit.forward(sent as u32);
        self.wrote(outcome);
        sent
    }

    /// Handles the result of a write.
    fn wrote(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
            Err(_) => self.end_receiving(),
        }
    }

    /// The host accepts no more data.
    fn end_receiving(&mut self) {
        self.host_shut |= SHUT_RECEIVE;
        self.credit.forward(self.kept.len() as u32);
        self.kept = VecDeque::new();
    }

    fn keep(&mut self, mut data: Buffers<'_>) -> Result<(), Fault> {
        let mut piece = [0; PIECE_LEN];
        while !data.is_empty() {
            let len = data.len().min(PIECE_LEN as u64);
            let (here, rest) = data.split_at(len).expect("it is no longer than what is left");
            let piece = &mut piece[..len as usize];
            here.read(piece)?;
            self.kept.extend(&*piece);
            data = rest;
        }
        Ok(())
    }

    fn shut(&mut self, flags: u32) -> Verdict {
        let news = flags & SHUT_BOTH & !self.guest_shut;
        self.guest_shut |= news;
        if news & SHUT_RECEIVE != 0 {
            // Later writes by the host program fail.
            self.shut_socket(Shutdown::Read);
        }
        self.finish_sending()
    }

    /// When all data from the guest has been delivered, shuts the socket's write direction down; if the guest
    /// doesn't receive either, the connection has ended and the guest is notified (virtio 1.2 §5.10.6.5).
    fn finish_sending(&mut self) -> Verdict {
        if self.guest_shut & SHUT_SEND == 0 || !self.kept.is_empty() {
            return Verdict::Keep;
        }
        if self.stage == Stage::Orphaned {
            return Verdict::Close;
        }
        if self.guest_shut == SHUT_BOTH {
            return Verdict::Reset;
        }
        // Once, because it triggers an event itself.
        if !std::mem::replace(&mut self.has_finished, true) {
            self.shut_socket(Shutdown::Write);
        }
        Verdict::Keep
    }

    fn shut_socket(&self, how: Shutdown) {
        if let Some(socket) = &self.socket {
            // If the other end is closed, failure doesn't matter.
            let _ = socket.shutdown(how);
        }
    }

    /// Handles an event of the socket.
    pub(super) fn wake(&mut self, is_hung_up: bool) -> Verdict {
        (self.is_readable, self.is_writable) = (true, true);
        self.is_hung_up |= is_hung_up;
        if self.is_hung_up && self.stage == Stage::Requested {
            // The client doesn't wait for the response.
            return Verdict::Reset;
        }
        self.notice_hangup();
        self.flush()
    }

    /// A closed host end accepts nothing, although that only shows at the next write. Data that it sent
    /// before is read first.
    fn notice_hangup(&mut self) {
        let is_read = self.host_shut & SHUT_SEND != 0 || self.guest_shut & SHUT_RECEIVE != 0;
        if self.is_hung_up && is_read && self.stage == Stage::Established {
            self.host_shut = SHUT_BOTH;
            self.end_receiving();
        }
    }

    /// Writes kept data to the host.
    fn flush(&mut self) -> Verdict {
        while self.is_writable && !self.kept.is_empty() {
            let Some(socket) = &self.socket else { break };
            let (front, _) = self.kept.as_slices();
            match send(socket, front, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(len) => {
                    self.kept.drain(..len);
                    self.credit.forward(len as u32);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.wrote(Err(error.into())),
            }
        }
        if !self.kept.is_empty() {
            return Verdict::Keep;
        }
        // An idle connection has no buffer.
        self.kept = VecDeque::new();
        self.finish_sending()
    }

    /// Whether it may have a packet for the guest.
    pub(super) fn has_news(&self) -> bool {
        let is_told = self.told_shut == self.host_shut || self.stage != Stage::Established;
        self.stage != Stage::Orphaned
            && (self.due.opening.is_some()
                || self.due.credit_update
                || self.due.credit_request
                || !is_told
                || self.is_update_due()
                || self.wants_to_read())
    }

    fn is_update_due(&self) -> bool {
        self.stage == Stage::Established && self.guest_shut & SHUT_SEND == 0 && self.credit.is_update_due()
    }

    /// Whether the host may have data for which the guest has room, or for which to request credit.
    fn wants_to_read(&self) -> bool {
        let is_open = self.host_shut & SHUT_SEND == 0 && self.guest_shut & SHUT_RECEIVE == 0;
        let can_ask = self.credit.peer_room() > 0 || !self.has_asked;
        self.stage == Stage::Established && self.is_readable && is_open && can_ask
    }

    /// The next packet for the guest: an operation, its flags and the length of its data, which is in `room`.
    /// `None` if there is nothing; [`NoRoom`] if `room` is too small.
    pub(super) fn give(
        &mut self,
        room: &Buffers<'_>,
        slices: &mut IoSlices,
    ) -> Result<Option<Header>, NoRoom> {
        if let Some(op) = self.due.opening.take() {
            return Ok(Some(self.packet(op, 0, 0)));
        }
        if self.wants_to_read() && self.credit.peer_room() > 0 {
            if room.is_empty() {
                return Err(NoRoom);
            }
            if let Some(len) = self.read(room, slices)? {
                return Ok(Some(self.packet(Op::Rw, 0, len)));
            }
        }
        if self.stage == Stage::Established && self.told_shut != self.host_shut {
            self.told_shut = self.host_shut;
            return Ok(Some(self.packet(Op::Shutdown, self.told_shut, 0)));
        }
        if std::mem::take(&mut self.due.credit_update) || self.is_update_due() {
            return Ok(Some(self.packet(Op::CreditUpdate, 0, 0)));
        }
        if self.wants_to_read() {
            self.has_asked = true;
            return Ok(Some(self.packet(Op::CreditRequest, 0, 0)));
        }
        Ok(None)
    }

    fn packet(&mut self, op: Op, flags: u32, len: u32) -> Header {
        let mut header = Header { op: op as u16, flags, len, ..Header::default() };
        // Every packet carries it.
        self.due.credit_update = false;
        self.credit.stamp(&mut header);
        header
    }

    /// Reads data from the host into `room` and returns its length. `None` if there is none or the host has
    /// finished. The socket must exist, and `room` and the guest's credit must not be empty.
    fn read(&mut self, room: &Buffers<'_>, slices: &mut IoSlices) -> Result<Option<u32>, NoRoom> {
        let most = self.credit.peer_room().min(DATA_MAX);
        let (room, _) = room.split_at(room.len().min(most.into())).ok_or(NoRoom)?;
        let socket = self.socket.as_ref().ok_or(NoRoom)?;
        // Fails if it has more pieces than one system call takes.
        slices.fill(&room).map_err(|_| NoRoom)?;
        let received = loop {
            match slices.receive_from(socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        slices.clear();
        match received {
            Ok(0) => self.host_shut |= SHUT_SEND,
            Ok(len) => {
                // At most `most`.
                self.credit.send(len as u32);
                return Ok(Some(len as u32));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It was closed with unread data.
            Err(_) => (self.host_shut, self.is_hung_up) = (self.host_shut | SHUT_SEND, true),
        }
        self.is_readable = false;
        self.notice_hangup();
        Ok(None)
    }

    /// Whether both directions are closed for the host, and the guest knows.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Established && self.told_shut == SHUT_BOTH
    }
}

/// A chain has no room for data, or too many pieces.
#[derive(Debug)]
pub(super) struct NoRoom;
