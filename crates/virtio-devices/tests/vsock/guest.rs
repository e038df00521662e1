//! A hand-written vsock driver.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use vmm_virtio::VirtioDevice;
use vmm_virtio::testing::{Buf, Driver};
use vmm_virtio::vm_memory::{Bytes, GuestAddress};
use vmm_virtio_devices::vsock::packet::{
    HEADER_LEN, HOST_CID, Header, Op, SHUT_BOTH, SHUT_SEND, TYPE_STREAM,
};

use super::{CID, counted};

pub(crate) const RECEIVEQ: usize = 0;
pub(crate) const TRANSMITQ: usize = 1;
pub(crate) const EVENTQ: usize = 2;
/// Receive buffers with a page of data each, as in Linux.
const BUFFERS: usize = 64;
pub(crate) const ROOM: u32 = 4096;
/// Packets in flight from the guest, with 64 KiB of data each.
const SENDING: usize = 16;
const SENDING_LEN: u32 = HEADER_LEN as u32 + (64 << 10);
/// The guest's default credit: Linux's VIRTIO_VSOCK_DEFAULT_BUF_SIZE.
pub(crate) const BUF_ALLOC: u32 = 256 << 10;

pub(crate) struct Guest {
    pub(crate) driver: Driver,
    /// Buffers that the device owns, by head.
    receiving: HashMap<u16, u64>,
    /// Buffers that the guest owns.
    spare: Vec<u64>,
    sending: HashMap<u16, u64>,
    sent: Vec<u64>,
    inbox: VecDeque<(Header, Vec<u8>)>,
    /// Whether used buffers are resubmitted at once.
    pub(crate) is_generous: bool,
    /// Credit given per connection.
    pub(crate) buf_alloc: u32,
    next_port: u32,
}

/// A connection's state in the guest.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) host_port: u32,
    pub(crate) guest_port: u32,
    pub(crate) buf_alloc: u32,
    /// Bytes received, and those that the guest's program has read.
    pub(crate) received: u32,
    pub(crate) forwarded: u32,
    pub(crate) sent: u32,
    pub(crate) peer_buf_alloc: u32,
    pub(crate) peer_forwarded: u32,
}

impl Flow {
    pub(crate) fn new(host_port: u32, guest_port: u32) -> Self {
        Self {
            host_port,
            guest_port,
            buf_alloc: BUF_ALLOC,
            received: 0,
            forwarded: 0,
            sent: 0,
            peer_buf_alloc: 0,
            peer_forwarded: 0,
        }
    }

    pub(crate) fn header(&self, op: Op) -> Header {
        Header {
            src_cid: CID.into(),
            dst_cid: HOST_CID,
            src_port: self.guest_port,
            dst_port: self.host_port,
            len: 0,
            kind: TYPE_STREAM,
            op: op as u16,
            flags: 0,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.forwarded,
        }
    }

    pub(crate) fn is_of(&self, header: &Header) -> bool {
        (header.src_port, header.dst_port) == (self.host_port, self.guest_port)
    }

    /// Handles a packet, and reads its data at once.
    pub(crate) fn learn(&mut self, header: &Header) {
        (self.peer_buf_alloc, self.peer_forwarded) = (header.buf_alloc, header.fwd_cnt);
        self.received = self.received.wrapping_add(header.len);
        assert!(
            self.received.wrapping_sub(self.forwarded) <= self.buf_alloc,
            "the device sends more than the guest takes"
        );
    }

    /// Credit given by the device.
    pub(crate) fn room(&self) -> u32 {
        self.peer_buf_alloc - self.sent.wrapping_sub(self.peer_forwarded)
    }
}

impl Guest {
    pub(crate) fn new(device: Box<dyn VirtioDevice>) -> Self {
        let mut guest = Self {
            driver: Driver::new(device, 19),
            receiving: HashMap::new(),
            spare: Vec::new(),
            sending: HashMap::new(),
            sent: Vec::new(),
            inbox: VecDeque::new(),
            is_generous: true,
            buf_alloc: BUF_ALLOC,
            next_port: 100_000,
        };
        guest.init();
        guest.give_buffers();
        guest
    }

    /// The guest continues with another device, as after a restore.
    pub(crate) fn moved(self, device: Box<dyn VirtioDevice>) -> Self {
        Self { driver: self.driver.move_to(device), ..self }
    }

    /// Provides a buffer for an event, as long as Linux's.
    pub(crate) fn give_event_buffer(&mut self) {
        let mut queue = self.driver.queue(EVENTQ);
        queue.add(&[Buf::Write(4)]);
        queue.kick();
    }

    /// Initialises the driver again; no buffers are provided.
    pub(crate) fn init(&mut self) {
        self.driver.init(0);
        self.receiving.clear();
        self.sending.clear();
        self.inbox.clear();
        let mut queue = self.driver.queue(RECEIVEQ);
        self.spare = (0..BUFFERS).map(|_| queue.buffer(HEADER_LEN as u32 + ROOM)).collect();
        self.sent = (0..SENDING).map(|_| queue.buffer(SENDING_LEN)).collect();
    }

    /// Provides all buffers.
    pub(crate) fn give_buffers(&mut self) {
        for gpa in std::mem::take(&mut self.spare) {
            self.give_buffer(gpa);
        }
        self.driver.queue(RECEIVEQ).kick();
    }

    /// As Linux since 6.3: header and data in one descriptor.
    fn give_buffer(&mut self, gpa: u64) {
        let head = self.driver.queue(RECEIVEQ).add(&[Buf::WriteAt(gpa, HEADER_LEN as u32 + ROOM)]);
        self.receiving.insert(head, gpa);
    }

    /// Handles used chains. Returns whether there were any.
    pub(crate) fn collect(&mut self) -> bool {
        let mut is_any = false;
        while let Some(used) = self.driver.queue(TRANSMITQ).try_used() {
            is_any = true;
            assert_eq!(used.len, 0);
            self.sent.extend(self.sending.remove(&used.head));
        }
        while let Some(used) = self.driver.queue(RECEIVEQ).try_used() {
            is_any = true;
            let Some(gpa) = self.receiving.remove(&used.head) else { continue };
            let mut bytes = vec![0; used.len as usize];
            self.driver.ram().memory().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
            let data = bytes.split_off(HEADER_LEN);
            let header = Header::from_bytes(bytes.as_slice().try_into().unwrap());
            assert_eq!(header.len as usize, data.len());
            assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, u64::from(CID)));
            self.inbox.push_back((header, data));
            self.spare.push(gpa);
        }
        if self.is_generous && !self.spare.is_empty() {
            self.give_buffers();
        }
        is_any
    }

    /// Waits for a used chain.
    pub(crate) fn turn(&mut self) {
        while !self.collect() {
            self.driver.wait_any_interrupt();
        }
    }

    /// Waits until the device has used all buffers that it owned.
    pub(crate) fn wait_for_all_buffers(&mut self) {
        while !self.receiving.is_empty() {
            self.turn();
        }
    }

    /// Makes a packet available and notifies the device.
    pub(crate) fn send(&mut self, header: &Header, data: &[u8]) {
        while self.sent.is_empty() {
            self.turn();
        }
        let gpa = self.sent.pop().unwrap();
        let mut queue = self.driver.queue(TRANSMITQ);
        queue.write_bytes(gpa, &header.to_bytes());
        queue.write_bytes(gpa + HEADER_LEN as u64, data);
        // As Linux does: one descriptor each.
        let head = Buf::ReadAt(gpa, HEADER_LEN as u32);
        let data = Buf::ReadAt(gpa + HEADER_LEN as u64, data.len() as u32);
        let bufs = [head, data];
        let count = 1 + usize::from(data != Buf::ReadAt(gpa + HEADER_LEN as u64, 0));
        let head = queue.add(&bufs[..count]);
        queue.kick();
        self.sending.insert(head, gpa);
    }

    /// Waits until the device has used all sent packets.
    pub(crate) fn settle(&mut self) {
        while !self.sending.is_empty() {
            self.turn();
        }
    }

    pub(crate) fn send_op(&mut self, flow: &Flow, op: Op) {
        self.send(&flow.header(op), &[]);
    }

    /// Sends data, ignoring the credit.
    pub(crate) fn send_data(&mut self, flow: &mut Flow, data: &[u8]) {
        let header = Header { len: data.len() as u32, ..flow.header(Op::Rw) };
        flow.sent = flow.sent.wrapping_add(data.len() as u32);
        self.send(&header, data);
    }

    /// Sends as much as the host's end accepts, and returns the number of bytes.
    pub(crate) fn send_what_there_is_room_for(&mut self, flow: &mut Flow) -> usize {
        let mut sent = 0;
        while flow.room() > 60_000 {
            self.send_data(flow, &counted(sent + 60_000)[sent..]);
            sent += 60_000;
            self.settle();
            while let Some((header, _)) = self.try_packet() {
                flow.learn(&header);
            }
        }
        sent
    }

    pub(crate) fn send_shutdown(&mut self, flow: &Flow, flags: u32) {
        self.send(&Header { flags, ..flow.header(Op::Shutdown) }, &[]);
    }

    /// The next packet from the device, if any.
    pub(crate) fn try_packet(&mut self) -> Option<(Header, Vec<u8>)> {
        self.collect();
        self.inbox.pop_front()
    }

    /// The next packet from the device.
    pub(crate) fn packet(&mut self) -> (Header, Vec<u8>) {
        while self.inbox.is_empty() {
            self.turn();
        }
        self.inbox.pop_front().unwrap()
    }

    /// The next packet, which must be of this connection and operation.
    #[track_caller]
    pub(crate) fn expect(&mut self, flow: &mut Flow, op: Op) -> (Header, Vec<u8>) {
        let (header, data) = self.packet();
        assert!(flow.is_of(&header) && header.op == op as u16, "{op:?} of {flow:?} instead of {header:?}");
        if op != Op::Rst {
            flow.learn(&header);
        }
        (header, data)
    }

    /// Expects that the host's end is closed. The device may have seen the end of its data first.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self, flow: &mut Flow) {
        let (header, _) = self.expect(flow, Op::Shutdown);
        let last = if header.flags == SHUT_SEND { self.expect(flow, Op::Shutdown).0 } else { header };
        assert_eq!(last.flags, SHUT_BOTH);
    }

    /// The next `len` bytes from the device, read at once; credit updates are skipped.
    #[track_caller]
    pub(crate) fn expect_data(&mut self, flow: &mut Flow, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let (header, data) = self.packet();
            let is_data = header.op == Op::Rw as u16 || header.op == Op::CreditUpdate as u16;
            assert!(flow.is_of(&header) && is_data, "data of {flow:?} instead of {header:?}");
            flow.learn(&header);
            flow.forwarded = flow.received;
            bytes.extend(data);
        }
        bytes
    }

    /// Expects that nothing arrives for a moment.
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self, time: Duration) {
        self.settle();
        if self.inbox.is_empty()
            && let Some(used) = self.driver.queue(RECEIVEQ).wait_used_for(time)
        {
            panic!("{used:?} came");
        }
        assert_eq!(self.inbox.pop_front(), None);
    }

    /// Accepts the connection that the host requests.
    pub(crate) fn accept(&mut self) -> Flow {
        let (header, _) = self.packet();
        assert_eq!(header.op, Op::Request as u16, "{header:?}");
        let mut flow = Flow::new(header.src_port, header.dst_port);
        flow.learn(&header);
        self.send_op(&flow, Op::Response);
        flow
    }

    /// Requests a connection, which the host accepts.
    #[track_caller]
    pub(crate) fn connect(&mut self, port: u32) -> Flow {
        let mut flow = self.request(port);
        self.expect(&mut flow, Op::Response);
        flow
    }

    /// Requests a connection.
    pub(crate) fn request(&mut self, port: u32) -> Flow {
        self.next_port += 1;
        let flow = Flow { buf_alloc: self.buf_alloc, ..Flow::new(port, self.next_port) };
        self.send_op(&flow, Op::Request);
        flow
    }
}
