//! Packets (virtio 1.2 §5.10.6): a header, followed by data if it is [`Op::Rw`].

use vmm_virtio::{Buffers, Chain};

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 44;
/// The host's context id (virtio 1.2 §5.10.4).
pub const HOST_CID: u64 = 2;
/// VIRTIO_VSOCK_TYPE_STREAM.
pub const TYPE_STREAM: u16 = 1;
/// VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE: the sender accepts no more data.
pub const SHUT_RECEIVE: u32 = 1;
/// VIRTIO_VSOCK_SHUTDOWN_F_SEND: the sender sends no more data.
pub const SHUT_SEND: u32 = 2;
/// Both directions.
pub const SHUT_BOTH: u32 = SHUT_RECEIVE | SHUT_SEND;

/// A packet's operation: VIRTIO_VSOCK_OP_ (virtio 1.2 §5.10.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Op {
    /// Opens a connection.
    Request = 1,
    /// Accepts a connection.
    Response = 2,
    /// Rejects or ends a connection.
    Rst = 3,
    /// Closes the directions in the flags.
    Shutdown = 4,
    /// Carries data.
    Rw = 5,
    /// Carries only credit, as every packet does.
    CreditUpdate = 6,
    /// Requests a credit update.
    CreditRequest = 7,
}

impl Op {
    /// The operation with this number.
    pub fn from_number(number: u16) -> Option<Self> {
        use Op::{CreditRequest, CreditUpdate, Request, Response, Rst, Rw, Shutdown};
        [Request, Response, Rst, Shutdown, Rw, CreditUpdate, CreditRequest]
            .into_iter()
            .find(|op| *op as u16 == number)
    }
}

/// struct virtio_vsock_hdr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The sender's context id.
    pub src_cid: u64,
    /// The receiver's context id.
    pub dst_cid: u64,
    /// The sender's port.
    pub src_port: u32,
    /// The receiver's port.
    pub dst_port: u32,
    /// Length of the data in bytes.
    pub len: u32,
    /// VIRTIO_VSOCK_TYPE_.
    pub kind: u16,
    /// VIRTIO_VSOCK_OP_.
    pub op: u16,
    /// With [`Op::Shutdown`]: VIRTIO_VSOCK_SHUTDOWN_F_.
    pub flags: u32,
    /// Buffer size of the sender for this connection in bytes.
    pub buf_alloc: u32,
    /// Number of received bytes that have left the sender's memory, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// Decodes a header. Any bytes are valid.
    pub fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Self {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let double = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            src_cid: double(0),
            dst_cid: double(8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        }
    }

    /// Encodes the header.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.src_cid.to_le_bytes());
        put(8, &self.dst_cid.to_le_bytes());
        put(16, &self.src_port.to_le_bytes());
        put(20, &self.dst_port.to_le_bytes());
        put(24, &self.len.to_le_bytes());
        put(28, &self.kind.to_le_bytes());
        put(30, &self.op.to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.buf_alloc.to_le_bytes());
        put(40, &self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The packet that tells this packet's sender, a guest, that the connection doesn't exist.
    pub fn reset(&self) -> Self {
        Self {
            src_cid: HOST_CID,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            // Unchanged: the sender uses it to find the socket.
            kind: self.kind,
            op: Op::Rst as u16,
            ..Self::default()
        }
    }
}

/// A valid packet from a guest.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Copied once and validated: from the guest, to the host, of a stream.
    pub header: Header,
    /// The operation.
    pub op: Op,
    /// As long as the header says for [`Op::Rw`], and empty otherwise.
    pub data: Buffers<'a>,
}

/// Why a guest's packet is invalid, and how to react.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No reaction: it has no complete header, isn't from the guest or not to the host, or must not be
    /// answered.
    Drop,
    /// It can't refer to a connection of ours (virtio 1.2 §5.10.6.4.2): answered with [`Header::reset`].
    Stray(Header),
    /// The operation doesn't exist or the length exceeds the chain: ends its connection, or is answered with
    /// [`Header::reset`].
    Broken(Header),
}

/// Parses the packet in `chain` from a guest with this context id.
///
/// # Errors
/// The packet is invalid.
pub fn parse<'a>(chain: &Chain<'a>, cid: u32) -> Result<Packet<'a>, Refusal> {
    let mut bytes = [0; HEADER_LEN];
    let Some((head, rest)) = chain.readable().split_at(HEADER_LEN as u64) else { return Err(Refusal::Drop) };
    head.read(&mut bytes).map_err(|_| Refusal::Drop)?;
    let header = Header::from_bytes(&bytes);
    if header.src_cid != u64::from(cid) || header.dst_cid != HOST_CID {
        return Err(Refusal::Drop);
    }
    let op = Op::from_number(header.op);
    if header.kind != TYPE_STREAM {
        // A reset isn't answered with a reset, which could go on endlessly.
        return Err(if op == Some(Op::Rst) { Refusal::Drop } else { Refusal::Stray(header) });
    }
    let op = op.ok_or(Refusal::Broken(header))?;
    let len = if op == Op::Rw { header.len.into() } else { 0 };
    let (data, _) = rest.split_at(len).ok_or(Refusal::Broken(header))?;
    Ok(Packet { header, op, data })
}
