//! The header of a qcow2 image (QEMU, docs/interop/qcow2.rst). Nothing here has side effects, so that a
//! fuzzer can call [`Header::parse`] with arbitrary bytes.

use std::ops::Range;

use super::refusal::{Encryption, Refusal};
use crate::image_format::QCOW2_MAGIC;

/// Magic number: "QFI" and 0xfb. Also that of version 1, a different format.
pub const MAGIC: [u8; 4] = QCOW2_MAGIC;
/// Maximum cluster size, as in QEMU. A header fits in the first cluster.
pub const HEADER_LEN_MAX: usize = 1 << (CLUSTER_BITS.end - 1);

/// Header length of version 2, and minimum length for version 3.
const V2_LEN: usize = 72;
const V3_LEN: usize = 104;
/// Location of [`Header::incompatible`].
pub(super) const INCOMPATIBLE: Range<usize> = 72..80;
/// Location of [`Header::autoclear`].
pub(super) const AUTOCLEAR: Range<usize> = 88..96;
/// Default for version 2, whose header has no such field: reference counts have 16 bits.
const REFCOUNT_ORDER: u32 = 4;

/// log2 of the cluster size: from 512 bytes to 2 MiB.
const CLUSTER_BITS: Range<u32> = 9..22;
/// Maximum length of the L1 table and of the refcount table, as in QEMU (block/qcow2.h, QCOW_MAX_L1_SIZE and
/// QCOW_MAX_REFTABLE_SIZE), because they are read into memory.
const L1_LEN_MAX: u64 = 32 << 20;
const REFCOUNT_TABLE_LEN_MAX: u64 = 8 << 20;
/// Maximum length of a backing file's name.
const NAME_LEN_MAX: u32 = 1023;

/// Incompatible features: an implementation that doesn't know one must not open the image.
const DIRTY: u32 = 0;
const CORRUPT: u32 = 1;
const EXTERNAL_DATA: u32 = 2;
const COMPRESSION_TYPE: u32 = 3;
const EXTENDED_L2: u32 = 4;

/// The autoclear feature that marks the bitmaps extension as consistent.
const BITMAPS: u64 = 1;

/// Header extension types; all others may be ignored.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;

/// Length of an entry of the feature name table: kind and number of the bit, and its name.
const FEATURE_NAME_LEN: usize = 48;

/// A valid header of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// log2 of the cluster size.
    pub cluster_bits: u32,
    /// Size of the disk in bytes.
    pub disk_len: u64,
    /// Compression type of clusters.
    pub compression: Compression,
    /// Incompatible features, which a reader must support.
    pub incompatible: u64,
    /// The image is marked corrupt: it may only be read.
    pub is_corrupt: bool,
    /// Autoclear features, which a writer that doesn't know them clears.
    pub autoclear: u64,
    /// The backing file.
    pub backing: Option<Backing>,
    /// Number of entries of the L1 table, and its offset.
    pub l1: (u32, u64),
    /// Number of clusters of the refcount table, and its offset.
    pub refcount_table: (u32, u64),
    /// log2 of the bits per reference count.
    pub refcount_order: u32,
    /// Number of internal snapshots, and the offset of their table.
    pub snapshots: (u32, u64),
}

/// Compression type of clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// DEFLATE.
    Deflate,
    /// Zstandard.
    Zstd,
}

/// The backing file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// Its name, as stored in the image.
    pub name: Vec<u8>,
    /// Its format, if stored in the image.
    pub format: Option<String>,
}

impl Header {
    /// Parses a header from an image's first cluster, or from the whole image if that is shorter.
    ///
    /// # Errors
    /// The image is damaged, or uses an unsupported feature.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let fields = Fields(bytes);
        if bytes.get(..4) != Some(&MAGIC) {
            return Err(Refusal::NotQcow2);
        }
        let version = fields.u32(4)?;
        let header_len = match version {
            2 => V2_LEN,
            3 => fields.u32(100)? as usize,
            _ => return Err(Refusal::Version(version)),
        };
        let cluster_bits = within("the cluster size", fields.u32(20)?, CLUSTER_BITS)?;
        let cluster_len = 1 << cluster_bits;
        let bytes = &bytes[..bytes.len().min(cluster_len)];
        let is_right = if version == 2 { true } else { (V3_LEN..=cluster_len).contains(&header_len) };
        if !is_right || header_len > bytes.len() {
            return Err(Refusal::Damaged("the header's length", header_len as u64));
        }
        let extensions = Extensions::read(bytes, header_len, fields.u64(8)?)?;
        let incompatible = if version == 2 { 0 } else { fields.u64(INCOMPATIBLE.start)? };
        check_encryption(fields.u32(32)?)?;
        check_incompatible(incompatible, &extensions)?;
        let header = Self {
            version,
            cluster_bits,
            disk_len: fields.u64(24)?,
            compression: compression(&fields, header_len, incompatible)?,
            incompatible,
            is_corrupt: incompatible & 1 << CORRUPT != 0,
            autoclear: if version == 2 { 0 } else { fields.u64(AUTOCLEAR.start)? },
            backing: backing(bytes, extensions.backing_format)?,
            l1: (fields.u32(36)?, fields.u64(40)?),
            refcount_table: (fields.u32(56)?, fields.u64(48)?),
            refcount_order: if version == 2 { REFCOUNT_ORDER } else { fields.u32(96)? },
            snapshots: (fields.u32(60)?, fields.u64(64)?),
        };
        header.check_tables()?;
        Ok(header)
    }

    /// [`incompatible`](Self::incompatible) with the dirty bit set if `is_written`: the tables may then be
    /// inconsistent. `None` for version 2, which has no dirty bit.
    pub(super) fn marked(&self, is_written: bool) -> Option<u64> {
        let mark = if is_written { 1 << DIRTY } else { 0 };
        (self.version > 2).then_some(self.incompatible & !(1 << DIRTY) | mark)
    }

    /// Whether it has consistent dirty bitmaps. A write makes them inconsistent.
    pub fn has_bitmaps(&self) -> bool {
        self.autoclear & BITMAPS != 0
    }

    /// The header of a plain image with the same tables, without features, extensions and backing file.
    pub(super) fn plain(&self) -> [u8; PLAIN_LEN] {
        let mut bytes = [0; PLAIN_LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(4, &self.version.to_be_bytes());
        put(20, &self.cluster_bits.to_be_bytes());
        put(24, &self.disk_len.to_be_bytes());
        put(36, &self.l1.0.to_be_bytes());
        put(40, &self.l1.1.to_be_bytes());
        put(48, &self.refcount_table.1.to_be_bytes());
        put(56, &self.refcount_table.0.to_be_bytes());
        put(96, &self.refcount_order.to_be_bytes());
        put(100, &(V3_LEN as u32).to_be_bytes());
        bytes
    }

    /// [`l1`](Self::l1) and [`refcount_table`](Self::refcount_table) of a header.
    pub(super) fn tables(bytes: &[u8]) -> Option<((u32, u64), (u32, u64))> {
        let fields = Fields(bytes);
        Some(((fields.u32(36).ok()?, fields.u64(40).ok()?), (fields.u32(56).ok()?, fields.u64(48).ok()?)))
    }

    fn check_tables(&self) -> Result<(), Refusal> {
        let cluster_len = 1_u64 << self.cluster_bits;
        within("the refcounts' width", self.refcount_order, 0..7)?;
        for (what, offset) in [
            ("the level 1 table's offset", self.l1.1),
            ("the refcount table's offset", self.refcount_table.1),
        ] {
            // Offsets in an image have 56 bits.
            if offset == 0 || !offset.is_multiple_of(cluster_len) || offset >> 56 != 0 {
                return Err(Refusal::Damaged(what, offset));
            }
        }
        let (entries, _) = self.l1;
        // An L1 entry has 8 bytes, and maps one L2 table, a cluster of 8-byte entries.
        let entry_len = cluster_len * (cluster_len / 8);
        if u64::from(entries) * 8 > L1_LEN_MAX || u64::from(entries) < self.disk_len.div_ceil(entry_len) {
            return Err(Refusal::Damaged("the level 1 table's size", entries.into()));
        }
        let (clusters, _) = self.refcount_table;
        if clusters == 0 || u64::from(clusters) * cluster_len > REFCOUNT_TABLE_LEN_MAX {
            return Err(Refusal::Damaged("the refcount table's size", clusters.into()));
        }
        Ok(())
    }
}

/// Length of [`Header::plain`]: a version 3 header and the end of its extensions.
pub(super) const PLAIN_LEN: usize = V3_LEN + 8;
/// Locations and sizes of the tables, in four consecutive fields: the only part of a plain header that
/// changes.
pub(super) const TABLES: Range<usize> = 36..60;

fn check_encryption(method: u32) -> Result<(), Refusal> {
    Err(Refusal::Encrypted(match method {
        0 => return Ok(()),
        1 => Encryption::Aes,
        2 => Encryption::Luks,
        other => Encryption::Other(other),
    }))
}

fn check_incompatible(bits: u64, extensions: &Extensions<'_>) -> Result<(), Refusal> {
    let known = [DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2];
    let unknown = bits & !known.iter().fold(0, |bits, bit| bits | 1 << bit);
    let has = |bit: u32| bits & 1 << bit != 0;
    match () {
        () if unknown != 0 => {
            let bit = unknown.trailing_zeros();
            Err(Refusal::UnknownFeature { bit, name: extensions.name_of_incompatible(bit) })
        }
        () if has(EXTERNAL_DATA) => Err(Refusal::ExternalData),
        () if has(EXTENDED_L2) => Err(Refusal::ExtendedL2),
        () if has(DIRTY) => Err(Refusal::Dirty),
        () => Ok(()),
    }
}

/// The field must be present and non-zero if and only if the feature bit is set.
fn compression(fields: &Fields<'_>, header_len: usize, incompatible: u64) -> Result<Compression, Refusal> {
    let kind = if header_len > V3_LEN { fields.u8(V3_LEN)? } else { 0 };
    match (incompatible & 1 << COMPRESSION_TYPE != 0, kind) {
        (false, 0) => Ok(Compression::Deflate),
        (true, 1) => Ok(Compression::Zstd),
        (true, other @ 2..) => Err(Refusal::Compression(other)),
        (_, other) => Err(Refusal::Damaged("the compression type", other.into())),
    }
}

fn backing(bytes: &[u8], format: Option<&[u8]>) -> Result<Option<Backing>, Refusal> {
    let (offset, len) = (Fields(bytes).u64(8)?, Fields(bytes).u32(16)?);
    if offset == 0 {
        return Ok(None);
    }
    let name = usize::try_from(offset).ok().filter(|_| len <= NAME_LEN_MAX);
    let name = name.and_then(|start| bytes.get(start..start.checked_add(len as usize)?));
    let name = name.ok_or(Refusal::Damaged("the backing file name's offset", offset))?.to_vec();
    let format = format.map(|format| String::from_utf8_lossy(format).into_owned());
    Ok(Some(Backing { name, format }))
}

fn within(what: &'static str, value: u32, allowed: Range<u32>) -> Result<u32, Refusal> {
    if allowed.contains(&value) { Ok(value) } else { Err(Refusal::Damaged(what, value.into())) }
}

/// Big-endian fields by offset.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Refusal> {
        let bytes = self.0.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.copied().ok_or(Refusal::CutShort(self.0.len()))
    }

    fn u8(&self, at: usize) -> Result<u8, Refusal> {
        self.array(at).map(u8::from_be_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, Refusal> {
        self.array(at).map(u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, Refusal> {
        self.array(at).map(u64::from_be_bytes)
    }
}

/// The relevant header extensions.
#[derive(Default)]
struct Extensions<'a> {
    backing_format: Option<&'a [u8]>,
    feature_names: &'a [u8],
}

impl<'a> Extensions<'a> {
    /// Reads those between the header and the backing file's name or the end of the cluster. QEMU writes them
    /// for version 2, too.
    fn read(cluster: &'a [u8], header_len: usize, name_offset: u64) -> Result<Self, Refusal> {
        let end = match usize::try_from(name_offset) {
            Ok(offset) if (1..cluster.len()).contains(&offset) => offset,
            _ => cluster.len(),
        };
        let mut found = Self::default();
        let mut rest = cluster.get(header_len..end).unwrap_or_default();
        while let Some((head, data)) = rest.split_first_chunk::<8>() {
            let [t0, t1, t2, t3, l0, l1, l2, l3] = *head;
            let (kind, len) = (u32::from_be_bytes([t0, t1, t2, t3]), u32::from_be_bytes([l0, l1, l2, l3]));
            if kind == END {
                break;
            }
            let len = len as usize;
            let own = data.get(..len).ok_or(Refusal::Damaged("a header extension's length", len as u64))?;
            match kind {
                BACKING_FORMAT => found.backing_format = Some(own),
                FEATURE_NAMES => found.feature_names = own,
                _ => {}
            }
            rest = data.get(len.next_multiple_of(8)..).unwrap_or_default();
        }
        Ok(found)
    }

    /// The name of an incompatible feature in the image, reduced to printable characters; `None` if nothing
    /// is left.
    fn name_of_incompatible(&self, bit: u32) -> Option<String> {
        let (entries, _) = self.feature_names.as_chunks::<FEATURE_NAME_LEN>();
        let entry = entries.iter().find(|entry| entry[0] == 0 && u32::from(entry[1]) == bit)?;
        let name = entry[2..].iter().take_while(|byte| **byte != 0);
        let printable = name.filter(|byte| byte.is_ascii_graphic() || **byte == b' ');
        let name: String = printable.map(|byte| char::from(*byte)).collect();
        (!name.is_empty()).then_some(name)
    }
}
