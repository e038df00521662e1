//! Parses and validates requests from a disk's driver (virtio 1.2 §5.2.6). Nothing here has side effects, so
//! that a fuzzer can call [`parse`] with arbitrary chains.

use std::ops::Range;

use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vmm_hostio::Durable;
use vmm_virtio::{Buffers, Chain, Fault};

use super::errors::Operation;

/// Unit of all positions and lengths in the protocol, in bytes (virtio 1.2 §5.2.4).
pub const SECTOR_LEN: u64 = 512;
/// Length of `type`, `reserved` and `sector` at the start of each request.
pub(super) const HEADER_LEN: u64 = 16;
/// Length of `struct virtio_blk_discard_write_zeroes`.
const SEGMENT_LEN: u64 = 16;
/// Length of a serial number in bytes.
pub const SERIAL_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;
/// Queue size, as in other monitors. It limits how much a driver has in flight.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Maximum number of data segments per request: a chain without header and status.
pub const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Maximum length of a segment (VIRTIO_BLK_F_SIZE_MAX). FreeBSD's driver rejects a disk whose limit is below
/// its maximum I/O size (sys/dev/virtio/block/virtio_blk.c, `vtblk_attach`), 1 MiB unless `kern.maxphys` was
/// changed.
pub const SIZE_MAX: u32 = 1 << 20;
/// Maximum data per request: that of a driver that respects both limits. Linux does
/// (drivers/block/virtio_blk.c passes them to the block layer as `max_segments` and `max_segment_size`), and
/// sends a few MiB at most unless `max_sectors_kb` is raised. Without this limit, a chain whose descriptors
/// all refer to the same memory could move up to 1 TiB, and a stop of the device would wait for it.
pub const DATA_LEN_MAX: u64 = SEGMENTS_MAX as u64 * SIZE_MAX as u64;
/// Maximum number of sectors per discard: 1 GiB, so that a request occupies a host thread only briefly.
pub const DISCARD_SECTORS_MAX: u32 = (1 << 30) / SECTOR_LEN as u32;
/// Maximum number of sectors per write-zeroes request: 32 MiB, which takes some hundredths of a second if the
/// host has to write them.
pub const ZEROES_SECTORS_MAX: u32 = (32 << 20) / SECTOR_LEN as u32;

/// [Work](Request::work) of a flush: the bytes that a disk moves in the same time.
const FLUSH_WORK: u64 = 1 << 20;
/// How many bytes are discarded in the time of moving one: the largest discard is 32 MiB of work.
const DISCARD_WORK: u64 = 32;

/// Outcome of a request, as in the last byte of its chain (virtio 1.2 §5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// VIRTIO_BLK_S_OK.
    Done,
    /// VIRTIO_BLK_S_IOERR.
    Failed,
    /// VIRTIO_BLK_S_UNSUPP.
    Unsupported,
}

impl Status {
    /// The status byte.
    pub fn byte(self) -> u8 {
        let status = match self {
            Self::Done => VIRTIO_BLK_S_OK,
            Self::Failed => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        };
        status as u8
    }
}

/// The disk's properties against which requests are validated.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Size in sectors.
    pub sectors: u64,
    /// Whether writes are rejected.
    pub read_only: bool,
    /// The negotiated features, as bits.
    pub features: u64,
}

/// A valid request. Positions and lengths are in bytes, whole sectors, and within the disk.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    /// Fills `into` from `offset`.
    Read {
        /// Position on the disk.
        offset: u64,
        /// Destination.
        into: Buffers<'a>,
    },
    /// Writes `from` at `offset`.
    Write {
        /// Position on the disk.
        offset: u64,
        /// Source.
        from: Buffers<'a>,
    },
    /// Brings all completed writes to stable storage.
    Flush,
    /// Returns the serial number.
    Identify {
        /// Destination, 20 bytes.
        into: Buffers<'a>,
    },
    /// Discards `range`, whose contents are no longer needed.
    Discard {
        /// Range on the disk.
        range: Range<u64>,
    },
    /// Makes `range` read as zeros.
    WriteZeroes {
        /// Range on the disk.
        range: Range<u64>,
        /// Whether its space on the host may be freed.
        unmap: bool,
    },
}

impl Request<'_> {
    /// For messages.
    pub(super) fn operation(&self) -> Operation {
        let (name, offset) = match self {
            Self::Read { offset, .. } => ("a read", Some(*offset)),
            Self::Write { offset, .. } => ("a write", Some(*offset)),
            Self::Flush => return Operation::FLUSH,
            Self::Identify { .. } => ("a request for the serial number", None),
            Self::Discard { range } => ("a discard", Some(range.start)),
            Self::WriteZeroes { range, .. } => ("a write of zeros", Some(range.start)),
        };
        Operation { name, offset }
    }

    /// Whether it completes on stable storage, with `durable` writes.
    pub(super) fn is_durable(&self, durable: Durable) -> bool {
        match self {
            Self::Flush => true,
            Self::Write { .. } | Self::WriteZeroes { .. } => durable == Durable::Yes,
            Self::Read { .. } | Self::Identify { .. } | Self::Discard { .. } => false,
        }
    }

    /// Bytes moved, for rate limits.
    pub fn moved_len(&self) -> u64 {
        match self {
            Self::Read { into: data, .. } | Self::Write { from: data, .. } => data.len(),
            Self::WriteZeroes { range, .. } => range.end - range.start,
            Self::Flush | Self::Identify { .. } | Self::Discard { .. } => 0,
        }
    }

    /// Estimated cost with `durable` writes, as the number of bytes moved in the same time. Used to bound the
    /// work in flight.
    pub fn work(&self, durable: Durable) -> u64 {
        let flush = if durable == Durable::Yes { FLUSH_WORK } else { 0 };
        match self {
            Self::Read { .. } => self.moved_len(),
            Self::Write { .. } | Self::WriteZeroes { .. } => self.moved_len() + flush,
            Self::Discard { range } => (range.end - range.start) / DISCARD_WORK,
            Self::Flush => FLUSH_WORK,
            Self::Identify { .. } => 0,
        }
    }
}

/// A parsed chain.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// The request, or the status of a rejected one.
    pub request: Result<Request<'a>, Status>,
    /// The status byte.
    pub status: Buffers<'a>,
}

/// Parses a chain. The header is read once, so that what is validated is what is executed.
///
/// # Errors
/// There is no room for the status, so all that remains is to report a violation by the driver.
pub fn parse<'a>(chain: &Chain<'a>, terms: &Terms) -> Result<Parsed<'a>, Fault> {
    let (into, status) =
        chain.writable().split_end(1).ok_or(Fault::Request("a disk request has no room for its status"))?;
    let request = match chain.readable().split_at(HEADER_LEN) {
        Some((header, from)) => read_request(header.read_obj()?, into, from, terms)?,
        None => Err(Status::Failed),
    };
    Ok(Parsed { request, status })
}

/// Parses the request. The chain's parts must have exactly the required length.
fn read_request<'a>(
    header: [u8; HEADER_LEN as usize],
    into: Buffers<'a>,
    from: Buffers<'a>,
    terms: &Terms,
) -> Result<Result<Request<'a>, Status>, Fault> {
    let [t0, t1, t2, t3, _, _, _, _, s @ ..] = header;
    let (kind, sector) = (u32::from_le_bytes([t0, t1, t2, t3]), u64::from_le_bytes(s));
    let has = |feature: u32| terms.features & (1 << feature) != 0;
    let refused = match kind {
        VIRTIO_BLK_T_OUT if terms.read_only => Err(Status::Failed),
        VIRTIO_BLK_T_DISCARD if !has(VIRTIO_BLK_F_DISCARD) => Err(Status::Unsupported),
        VIRTIO_BLK_T_WRITE_ZEROES if !has(VIRTIO_BLK_F_WRITE_ZEROES) => Err(Status::Unsupported),
        VIRTIO_BLK_T_FLUSH if !has(VIRTIO_BLK_F_FLUSH) => Err(Status::Unsupported),
        VIRTIO_BLK_T_IN if from.is_empty() => {
            Ok(terms.data_range(sector, into.len()).map(|range| Request::Read { offset: range.start, into }))
        }
        VIRTIO_BLK_T_OUT if into.is_empty() => {
            Ok(terms.data_range(sector, from.len()).map(|range| Request::Write { offset: range.start, from }))
        }
        VIRTIO_BLK_T_FLUSH if from.is_empty() && into.is_empty() => Ok(Some(Request::Flush)),
        VIRTIO_BLK_T_GET_ID if from.is_empty() => {
            Ok((into.len() == SERIAL_LEN as u64).then_some(Request::Identify { into }))
        }
        // One segment per request, as the configuration says.
        VIRTIO_BLK_T_DISCARD if into.is_empty() && from.len() == SEGMENT_LEN => {
            terms.discard(Segment::new(from.read_obj()?))
        }
        VIRTIO_BLK_T_WRITE_ZEROES if into.is_empty() && from.len() == SEGMENT_LEN => {
            terms.write_zeroes(Segment::new(from.read_obj()?))
        }
        VIRTIO_BLK_T_IN
        | VIRTIO_BLK_T_OUT
        | VIRTIO_BLK_T_FLUSH
        | VIRTIO_BLK_T_GET_ID
        | VIRTIO_BLK_T_DISCARD
        | VIRTIO_BLK_T_WRITE_ZEROES => Err(Status::Failed),
        _ => Err(Status::Unsupported),
    };
    Ok(refused.and_then(|request| request.ok_or(Status::Failed)))
}

/// `struct virtio_blk_discard_write_zeroes` (virtio 1.2 §5.2.6).
struct Segment {
    sector: u64,
    sectors: u32,
    flags: u32,
}

impl Segment {
    fn new(bytes: [u8; SEGMENT_LEN as usize]) -> Self {
        let [a, b, c, d, e, f, g, h, n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
        Self {
            sector: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            sectors: u32::from_le_bytes([n0, n1, n2, n3]),
            flags: u32::from_le_bytes([f0, f1, f2, f3]),
        }
    }
}

impl Terms {
    /// The byte range of `len` bytes from `sector`, if it consists of whole sectors of the disk and isn't too
    /// long.
    fn data_range(&self, sector: u64, len: u64) -> Option<Range<u64>> {
        let allowed = len.is_multiple_of(SECTOR_LEN) && len <= DATA_LEN_MAX;
        allowed.then(|| self.range(sector, len / SECTOR_LEN))?
    }

    fn range(&self, sector: u64, sectors: u64) -> Option<Range<u64>> {
        let end = sector.checked_add(sectors).filter(|end| *end <= self.sectors)?;
        // The disk's size in bytes fits 64 bits, and so does any position in it.
        Some(sector * SECTOR_LEN..end * SECTOR_LEN)
    }

    /// A discard must have neither flag set (virtio 1.2 §5.2.6.2).
    fn discard<'a>(&self, segment: Segment) -> Result<Option<Request<'a>>, Status> {
        if segment.flags != 0 {
            return Err(Status::Unsupported);
        }
        let range = self.changed_range(&segment, DISCARD_SECTORS_MAX);
        Ok(range.map(|range| Request::Discard { range }))
    }

    fn write_zeroes<'a>(&self, segment: Segment) -> Result<Option<Request<'a>>, Status> {
        if segment.flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
            return Err(Status::Unsupported);
        }
        let unmap = segment.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
        let range = self.changed_range(&segment, ZEROES_SECTORS_MAX);
        Ok(range.map(|range| Request::WriteZeroes { range, unmap }))
    }

    fn changed_range(&self, segment: &Segment, max: u32) -> Option<Range<u64>> {
        let allowed = !self.read_only && segment.sectors <= max;
        allowed.then(|| self.range(segment.sector, segment.sectors.into()))?
    }
}
