//! Images with clusters compressed by Zstandard; imago supports only DEFLATE.
//!
//! imago handles everything except these clusters. They are decompressed here. Before a part of one is
//! written, the whole cluster is rewritten uncompressed, so that imago never reads it as DEFLATE.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use imago::format::drivers::FormatDriverInstance;
use imago::format::{Format, PreallocateMode};
use imago::io_buffers::IoVectorMut;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, PreparedDataMapping, ShallowMapping, StorageExt};
use ruzstd::decoding::StreamingDecoder;

use super::header::Header;
use super::storage::View;

/// Maximum window size: what the format recommends decoders to support (RFC 8878 §3.1.1.1.2), and four times
/// the largest cluster.
const WINDOW_LEN_MAX: u64 = 8 << 20;

/// The offset of an L2 table in an L1 entry.
const L2_OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// In an L2 entry: the cluster is compressed.
const IS_COMPRESSED: u64 = 1 << 62;

/// The image.
#[derive(Debug)]
pub(super) struct ZstdQcow2 {
    tables: Qcow2<View, FormatAccess<View>>,
    file: File,
    cluster_bits: u32,
    l1_offset: u64,
    disk_len: u64,
}

impl ZstdQcow2 {
    /// The image in `file`. `tables` handles everything except the compressed clusters.
    pub(super) fn new(tables: Qcow2<View, FormatAccess<View>>, file: File, header: &Header) -> Self {
        let &Header { cluster_bits, disk_len, l1: (_, l1_offset), .. } = header;
        Self { tables, file, cluster_bits, l1_offset, disk_len }
    }

    fn cluster_len(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Decompresses the cluster that contains `offset`.
    fn unpacked(&self, offset: u64) -> io::Result<Vec<u8>> {
        let (from, len) = self.place(offset)?;
        let mut packed = vec![0; len];
        read_up_to(&self.file, &mut packed, from)?;
        let frame = StreamingDecoder::new_with_max_window_size(&packed[..], WINDOW_LEN_MAX);
        let mut cluster = vec![0; self.cluster_len() as usize];
        frame.map_err(io::Error::other)?.read_exact(&mut cluster)?;
        Ok(cluster)
    }

    /// Offset and maximum length of a cluster's compressed data. imago never creates compressed clusters, and
    /// writes the copy of an L2 table at once, so the tables in the file are current for those.
    fn place(&self, offset: u64) -> io::Result<(u64, usize)> {
        let cluster = offset >> self.cluster_bits;
        let index_bits = self.cluster_bits - 3;
        let l2 = self.entry(self.l1_offset, cluster >> index_bits)? & L2_OFFSET;
        let entry = if l2 == 0 { 0 } else { self.entry(l2, cluster & ((1 << index_bits) - 1))? };
        if entry & IS_COMPRESSED == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the image was changed by another program",
            ));
        }
        // The larger the clusters, the more bits their sector count has.
        let offset_bits = 62 - (self.cluster_bits - 8);
        let place = entry & (IS_COMPRESSED - 1);
        let (from, sectors) = (place & ((1 << offset_bits) - 1), place >> offset_bits);
        let len = (sectors + 1) * 512 - from % 512;
        Ok((from, len as usize))
    }

    fn entry(&self, table: u64, index: u64) -> io::Result<u64> {
        let mut entry = [0; 8];
        let at = index.checked_mul(8).and_then(|at| table.checked_add(at));
        self.file.read_exact_at(&mut entry, at.ok_or(io::ErrorKind::InvalidData)?)?;
        Ok(u64::from_be_bytes(entry))
    }

    /// Rewrites the cluster at `start` uncompressed, if it is compressed.
    fn unpack(&self, start: u64) -> io::Result<()> {
        let (mapping, _) = self.tables.get_mapping(start, 1)?;
        if !matches!(mapping, ShallowMapping::Special { .. }) {
            return Ok(());
        }
        let cluster = self.unpacked(start)?;
        let len = self.cluster_len().min(self.disk_len - start);
        if len < self.cluster_len() {
            // imago preserves data beyond the end of the disk, and would read it.
            self.tables.ensure_zero_mapping(start, len)?;
        }
        let mut at = 0;
        while at < len {
            let mapping = self.tables.prepare_data_mapping(start + at, len - at, true)?;
            let here = &cluster[at as usize..][..mapping.length().min(len - at) as usize];
            mapping.storage().write(here, mapping.offset())?;
            self.tables.commit_data_mapping(mapping)?;
            at += here.len() as u64;
        }
        Ok(())
    }

    /// Rewrites uncompressed those clusters of which imago would keep a part when `offset` to `end` is
    /// written.
    fn unpack_kept(&self, offset: u64, end: u64, overwrite: bool) -> io::Result<()> {
        let cluster_of = |at: u64| at - at % self.cluster_len();
        let is_kept = |start: u64| start < offset || end < start + self.cluster_len();
        if overwrite {
            let (first, last) = (cluster_of(offset), cluster_of(end - 1));
            let mut ends = vec![first, last];
            ends.dedup();
            return ends.into_iter().filter(|start| is_kept(*start)).try_for_each(|start| self.unpack(start));
        }
        (cluster_of(offset)..end)
            .step_by(self.cluster_len() as usize)
            .try_for_each(|start| self.unpack(start))
    }
}

/// Fills `into` from `offset`, up to the end of the file.
fn read_up_to(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => return Ok(()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl FormatDriverInstance for ZstdQcow2 {
    type Storage = View;

    fn format(&self) -> Format {
        Format::Qcow2
    }

    unsafe fn probe(_storage: &View) -> io::Result<bool> {
        // Formats are never guessed.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn size(&self) -> u64 {
        self.tables.size()
    }

    fn zero_granularity(&self) -> Option<u64> {
        self.tables.zero_granularity()
    }

    fn collect_storage_dependencies(&self) -> Vec<&View> {
        self.tables.collect_storage_dependencies()
    }

    fn writable(&self) -> bool {
        self.tables.writable()
    }

    fn get_mapping<'a>(
        &'a self,
        offset: u64,
        max_length: u64,
    ) -> io::Result<(ShallowMapping<'a, View>, u64)> {
        self.tables.get_mapping(offset, max_length)
    }

    fn prepare_data_mapping<'a>(
        &'a self,
        offset: u64,
        length: u64,
        overwrite: bool,
    ) -> io::Result<PreparedDataMapping<'a, View>> {
        if let Some(end) = offset.checked_add(length).filter(|end| length > 0 && *end <= self.disk_len) {
            self.unpack_kept(offset, end, overwrite)?;
        }
        self.tables.prepare_data_mapping(offset, length, overwrite)
    }

    fn commit_data_mapping(&self, mapping: PreparedDataMapping<'_, View>) -> io::Result<()> {
        self.tables.commit_data_mapping(mapping)
    }

    fn ensure_zero_mapping(&self, offset: u64, length: u64) -> io::Result<(u64, u64)> {
        self.tables.ensure_zero_mapping(offset, length)
    }

    unsafe fn discard_to_zero_unsafe(&self, offset: u64, length: u64) -> io::Result<(u64, u64)> {
        // SAFETY: the caller ensures that no mappings of the range, all of which belong to `tables`, are in
        // use.
        unsafe { self.tables.discard_to_zero_unsafe(offset, length) }
    }

    unsafe fn discard_to_any_unsafe(&self, offset: u64, length: u64) -> io::Result<(u64, u64)> {
        // SAFETY: the caller ensures that no mappings of the range, all of which belong to `tables`, are in
        // use.
        unsafe { self.tables.discard_to_any_unsafe(offset, length) }
    }

    fn readv_special(&self, mut bufv: IoVectorMut<'_>, mut offset: u64) -> io::Result<()> {
        while !bufv.is_empty() {
            let cluster = self.unpacked(offset)?;
            let at = (offset % self.cluster_len()) as usize;
            let (mut here, rest) = bufv.split_at((cluster.len() - at) as u64);
            here.copy_from_slice(&cluster[at..][..here.len() as usize]);
            (offset, bufv) = (offset + here.len(), rest);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.tables.flush()
    }

    fn sync(&self) -> io::Result<()> {
        self.tables.sync()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // The image is locked, so nothing else writes it.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn resize_grow(&self, _new_size: u64, _mode: PreallocateMode) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn resize_shrink(&mut self, _new_size: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl fmt::Display for ZstdQcow2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.tables, f)
    }
}
