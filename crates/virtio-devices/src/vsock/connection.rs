//! One connection: a socket of the host, and a flow of packets.
//!
//! ```text
//!  the host:  CONNECT  --> Requested --RESPONSE--> Established --+-- both directions over, RST --> gone
//!  the guest: REQUEST  --> Connecting --connect--> Established --+-- RST with something kept --> Orphaned --> gone
//! ```
//!
//! What the guest sends goes straight to the socket, and what that doesn't take is kept here, up to what the guest was
//! promised. What the host sends stays in the socket until the guest has a buffer for it.

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

/// The most data of a packet to the guest, in bytes: Linux's own limit (include/linux/virtio_vsock.h,
/// VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
const DATA_MAX: u32 = 64 << 10;
/// Bytes copied at a time, of what the host doesn't take.
const PIECE_LEN: usize = 4096;

/// The two ports of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The guest asked for it, and the host's program has no room for another client yet.
    Connecting,
    /// The host asked for it, and the guest hasn't answered.
    Requested,
    /// Data goes both ways.
    Established,
    /// The guest is done with it; the host hasn't taken everything.
    Orphaned,
}

/// What follows from something that happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    /// It goes on.
    Keep,
    /// It is over, and the guest is to be told so.
    Reset,
    /// The same, because the guest did what it mustn't.
    Refuse,
    /// It is over, and the guest knows.
    Close,
}

/// Packets without data that wait for a buffer of the guest's.
#[derive(Debug, Default)]
struct Due {
    /// REQUEST or RESPONSE.
    opening: Option<Op>,
    credit_update: bool,
    credit_request: bool,
}

/// See above.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) stage: Stage,
    /// When it is given up, if nothing happens.
    pub(super) deadline: Option<Instant>,
    /// `None` while it is [`Stage::Connecting`].
    socket: Option<UnixStream>,
    credit: Credit,
    /// Bytes of the guest's that the socket doesn't take.
    kept: VecDeque<u8>,
    due: Due,
    /// Which directions are over, as SHUT_: what the guest said, what the host did, and what the guest knows of that.
    guest_shut: u32,
    host_shut: u32,
    told_shut: u32,
    /// The socket may do something, as far as is known.
    is_readable: bool,
    is_writable: bool,
    /// The host's end is closed.
    is_hung_up: bool,
    /// The guest was asked for credit since it gave some.
    has_asked: bool,
    /// The host was told that the guest sends no more.
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
            due: Due::default(),
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

    /// One that the host asks for.
    pub(super) fn requested(key: Key, socket: UnixStream, buf_alloc: u32) -> Self {
        let mut connection = Self::new(key, Stage::Requested, Some(socket), buf_alloc);
        connection.due.opening = Some(Op::Request);
        connection
    }

    /// One that the guest asks for, by this packet.
    pub(super) fn connecting(key: Key, request: &Header, buf_alloc: u32) -> Self {
        let mut connection = Self::new(key, Stage::Connecting, None, buf_alloc);
        connection.credit.learn(request);
        connection
    }

    /// The host's program has taken it.
    pub(super) fn connected(&mut self, socket: UnixStream) {
        (self.socket, self.stage, self.deadline) = (Some(socket), Stage::Established, None);
        self.due.opening = Some(Op::Response);
    }

    pub(super) fn socket(&self) -> Option<&UnixStream> {
        self.socket.as_ref()
    }

    /// What was promised for it.
    pub(super) fn buf_alloc(&self) -> u32 {
        self.credit.buf_alloc()
    }

    /// A packet of the guest's for it. Its data goes on by way of `slices`.
    ///
    /// # Errors
    /// The guest's memory isn't what it was.
    pub(super) fn take(
        &mut self,
        op: Op,
        header: &Header,
        data: &Buffers<'_>,
        slices: &mut IoSlices,
    ) -> Result<Verdict, Fault> {
        self.credit.learn(header);
        // Not without that: a guest answers a request with what it has, and would be asked again for ever.
        self.has_asked &= self.credit.peer_room() == 0;
        Ok(match (op, self.stage) {
            (Op::Rst, _) => self.reset(),
            (Op::Response, Stage::Requested) => self.accepted(),
            (Op::Rw, Stage::Established) => return self.receive(data, slices),
            (Op::Shutdown, Stage::Established) => self.shut(header.flags),
            (Op::CreditUpdate, _) => Verdict::Keep,
            (Op::CreditRequest, _) => {
                self.due.credit_update = true;
                Verdict::Keep
            }
            // A second REQUEST or RESPONSE, or data before there is a connection.
            _ => Verdict::Refuse,
        })
    }

    /// The guest took it: the client is told the host's port, as Firecracker does.
    fn accepted(&mut self) -> Verdict {
        (self.stage, self.deadline) = (Stage::Established, None);
        let line = format!("OK {}\n", self.key.host_port);
        let Some(socket) = &self.socket else { return Verdict::Reset };
        // The socket is empty, and takes a line whole.
        match send(socket, line.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(len) if len == line.len() => Verdict::Keep,
            _ => Verdict::Reset,
        }
    }

    /// The guest has forgotten it. What it sent before it said that it sends no more still goes to the host.
    fn reset(&mut self) -> Verdict {
        if self.kept.is_empty() || self.guest_shut & SHUT_SEND == 0 {
            return Verdict::Close;
        }
        (self.stage, self.deadline, self.due) = (Stage::Orphaned, None, Due::default());
        Verdict::Keep
    }

    fn receive(&mut self, data: &Buffers<'_>, slices: &mut IoSlices) -> Result<Verdict, Fault> {
        // No longer than the header says, which has 32 bits.
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
            // Nobody takes it.
            self.credit.forward(rest.len() as u32);
        } else {
            self.keep(rest)?;
        }
        // Data in more pieces than the kernel takes at once is all here, and no event will come for it.
        Ok(if self.is_writable && !self.kept.is_empty() { self.flush() } else { Verdict::Keep })
    }

    /// How much of it the socket takes.
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

    /// What became of a write.
    fn wrote(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
            Err(_) => self.end_receiving(),
        }
    }

    /// The host takes no more.
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
            // What the host still writes is an error there.
            self.shut_socket(Shutdown::Read);
        }
        self.finish_sending()
    }

    /// When all that the guest sent has gone, the host is told that there is no more; and the guest, if it takes nothing
    /// either, that this is over (virtio 1.2 §5.10.6.5).
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
        // Once: it is an event of its own.
        if !std::mem::replace(&mut self.has_finished, true) {
            self.shut_socket(Shutdown::Write);
        }
        Verdict::Keep
    }

    fn shut_socket(&self, how: Shutdown) {
        if let Some(socket) = &self.socket {
            // Of a socket whose other end is closed it doesn't matter.
            let _ = socket.shutdown(how);
        }
    }

    /// The socket has something to say.
    pub(super) fn wake(&mut self, is_hung_up: bool) -> Verdict {
        (self.is_readable, self.is_writable) = (true, true);
        self.is_hung_up |= is_hung_up;
        if self.is_hung_up && self.stage == Stage::Requested {
            // The client doesn't wait for the answer.
            return Verdict::Reset;
        }
        self.notice_hangup();
        self.flush()
    }

    /// A host's end that is closed takes nothing, though that shows only at its next write; what it sent before is read
    /// first.
    fn notice_hangup(&mut self) {
        let is_read = self.host_shut & SHUT_SEND != 0 || self.guest_shut & SHUT_RECEIVE != 0;
        if self.is_hung_up && is_read && self.stage == Stage::Established {
            self.host_shut = SHUT_BOTH;
            self.end_receiving();
        }
    }

    /// Gives the host what was kept.
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
        // An idle connection has no memory.
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

    /// The host may have data that the guest may get, or be asked for room for.
    fn wants_to_read(&self) -> bool {
        let is_open = self.host_shut & SHUT_SEND == 0 && self.guest_shut & SHUT_RECEIVE == 0;
        let can_ask = self.credit.peer_room() > 0 || !self.has_asked;
        self.stage == Stage::Established && self.is_readable && is_open && can_ask
    }

    /// The next packet for the guest: an operation, its flags and the length of its data, which is in `room` then. `None` if
    /// there is nothing; [`NoRoom`] if there is something for which `room` is too small.
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
        // Every packet says it.
        self.due.credit_update = false;
        self.credit.stamp(&mut header);
        header
    }

    /// How many bytes of the host's are in `room` now. `None` if there are none, or it has ended. Its socket is there, and
    /// neither `room` nor the guest's is empty.
    fn read(&mut self, room: &Buffers<'_>, slices: &mut IoSlices) -> Result<Option<u32>, NoRoom> {
        let most = self.credit.peer_room().min(DATA_MAX);
        let (room, _) = room.split_at(room.len().min(most.into())).ok_or(NoRoom)?;
        let socket = self.socket.as_ref().ok_or(NoRoom)?;
        // In more pieces than the kernel takes at once.
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
                // No more than `most`.
                self.credit.send(len as u32);
                return Ok(Some(len as u32));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It was closed with something unread.
            Err(_) => (self.host_shut, self.is_hung_up) = (self.host_shut | SHUT_SEND, true),
        }
        self.is_readable = false;
        self.notice_hangup();
        Ok(None)
    }

    /// Nothing goes either way any more, for the host, and the guest knows.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Established && self.told_shut == SHUT_BOTH
    }
}

/// A chain has no room for data, or in too many pieces.
#[derive(Debug)]
pub(super) struct NoRoom;
