//! What a driver asks of a disk, read from a chain (virtio 1.2 §5.2.6). Nothing here has an effect: the fuzzer gives
//! [`parse`] whatever it likes.

use std::ops::Range;

use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vmm_hostio::Durable;
use vmm_virtio::{Buffers, Chain, Fault};

/// The unit of every position and length on the wire, in bytes (virtio 1.2 §5.2.4).
pub const SECTOR_LEN: u64 = 512;
/// Bytes of `type`, `reserved` and `sector` in front of each request.
pub(super) const HEADER_LEN: u64 = 16;
/// Bytes of `struct virtio_blk_discard_write_zeroes`.
const SEGMENT_LEN: u64 = 16;
/// Bytes of a serial.
pub const SERIAL_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;
/// The most descriptors of a queue, as in other monitors: what a driver has in flight at once.
pub(super) const QUEUE_SIZE: u16 = 256;
/// The most buffers of a request: those of a chain without header and status.
pub const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// The most bytes of each, as VIRTIO_BLK_F_SIZE_MAX says. FreeBSD's driver refuses a disk that takes less than what it sends at
/// once (sys/dev/virtio/block/virtio_blk.c, `vtblk_attach`): 1 MiB, if its `kern.maxphys` wasn't changed.
pub const SIZE_MAX: u32 = 1 << 20;
/// The most bytes that one request moves: those of a driver that keeps to both. Linux's does (drivers/block/virtio_blk.c hands
/// them to the block layer as `max_segments` and `max_segment_size`), and sends a few MiB at most unless its `max_sectors_kb`
/// is raised. Without this, a chain whose descriptors all name the same memory would move up to 1 TiB, and a stop of the
/// device wait for that.
pub const DATA_LEN_MAX: u64 = SEGMENTS_MAX as u64 * SIZE_MAX as u64;
/// The most sectors that one discard names: 1 GiB, so that one request keeps a host thread for a moment only.
pub const DISCARD_SECTORS_MAX: u32 = (1 << 30) / SECTOR_LEN as u32;
/// The most sectors that one request zeroes: 32 MiB, which a host without a quicker way writes in some hundredths of a
/// second.
pub const ZEROES_SECTORS_MAX: u32 = (32 << 20) / SECTOR_LEN as u32;

/// What a flush is as [work](Request::work): what a disk moves while it does one.
const FLUSH_WORK: u64 = 1 << 20;
/// How much more of a disk is discarded than moved in the same time: a discard of all that may be is 32 MiB of work.
const DISCARD_WORK: u64 = 32;

/// How a request ended, as the last byte of its chain says it (virtio 1.2 §5.2.6).
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
    /// The byte.
    pub fn byte(self) -> u8 {
        let status = match self {
            Self::Done => VIRTIO_BLK_S_OK,
            Self::Failed => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        };
        status as u8
    }
}

/// What holds for the requests of a disk at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Its size.
    pub sectors: u64,
    /// Whether nobody may change it.
    pub read_only: bool,
    /// What the driver took, as bits.
    pub features: u64,
}

/// A request that may be carried out. Positions and lengths are in bytes, whole sectors, and inside the disk.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    /// Fill `into` from `offset`.
    Read {
        /// Where on the disk.
        offset: u64,
        /// What to fill.
        into: Buffers<'a>,
    },
    /// Write `from` to `offset`.
    Write {
        /// Where on the disk.
        offset: u64,
        /// What to write.
        from: Buffers<'a>,
    },
    /// Bring to stable storage whatever was completed before.
    Flush,
    /// Write the serial.
    Identify {
        /// 20 bytes.
        into: Buffers<'a>,
    },
    /// What is in `range` isn't needed any more.
    Discard {
        /// Where on the disk.
        range: Range<u64>,
    },
    /// Let `range` read as zeros.
    WriteZeroes {
        /// Where on the disk.
        range: Range<u64>,
        /// Whether its room on the host may be given up.
        unmap: bool,
    },
}

impl Request<'_> {
    /// Bytes that it moves, for a limit on these.
    pub fn moved_len(&self) -> u64 {
        match self {
            Self::Read { into: data, .. } | Self::Write { from: data, .. } => data.len(),
            Self::WriteZeroes { range, .. } => range.end - range.start,
            Self::Flush | Self::Identify { .. } | Self::Discard { .. } => 0,
        }
    }

    /// How long it keeps the host busy if its writes are `durable`, in bytes that are moved in that time: a guess, for whoever
    /// must come to an end.
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

/// A chain, taken apart.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// The request, or how to refuse it.
    pub request: Result<Request<'a>, Status>,
    /// The byte for its status.
    pub status: Buffers<'a>,
}

/// Takes a chain apart. The header is read once: what was checked is what is done.
///
/// # Errors
/// There is no byte for the status: nothing can be said but that the driver broke the rules.
pub fn parse<'a>(chain: &Chain<'a>, terms: &Terms) -> Result<Parsed<'a>, Fault> {
    let (into, status) =
        chain.writable().split_end(1).ok_or(Fault::Request("a disk request without room for its status"))?;
    let request = match chain.readable().split_at(HEADER_LEN) {
        Some((header, from)) => read_request(header.read_obj()?, into, from, terms)?,
        None => Err(Status::Failed),
    };
    Ok(Parsed { request, status })
}

/// Of what the driver gives, a request has what it needs and nothing else.
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
        // One segment each, as the configuration says.
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
    /// The bytes of `len` from `sector` on, if they are whole sectors of the disk, and not too many.
    fn data_range(&self, sector: u64, len: u64) -> Option<Range<u64>> {
        let allowed = len.is_multiple_of(SECTOR_LEN) && len <= DATA_LEN_MAX;
        allowed.then(|| self.range(sector, len / SECTOR_LEN))?
    }

    fn range(&self, sector: u64, sectors: u64) -> Option<Range<u64>> {
        let end = sector.checked_add(sectors).filter(|end| *end <= self.sectors)?;
        // A disk's size in bytes fits 64 bits, and so does what lies inside.
        Some(sector * SECTOR_LEN..end * SECTOR_LEN)
    }

    /// Neither flag is for a discard (virtio 1.2 §5.2.6.2).
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
