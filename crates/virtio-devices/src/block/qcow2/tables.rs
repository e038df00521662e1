//! Locations of an image's tables, and checks that data can't overwrite them.
//!
//! New data goes to a cluster with a reference count of 0, and an L2 entry may claim any cluster as the
//! guest's, or as exclusive to the disk although a snapshot shares it. So before an image is written, each of
//! its tables, including those of internal snapshots, must have a reference count that covers all its users,
//! and must not overlap another table or data: freeing the data would free the table. Data must have a count,
//! and a count of 1 if it is written in place (COPIED). Both must start at a cluster, before the end of the file:
//! beyond it an image that was copied only in part reads as zeros, or as having no data at all.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::ops::Range;

use super::counts::Counts;
use super::entries::{L1_OFFSET, Problem, TableEntry, entries, misplaced, read_padded};
use super::header::Header;
use super::refusal::{Refusal, Table};
use super::snapshots;

/// The offset in an entry of the refcount table.
pub(super) const REFCOUNT_OFFSET: u64 = 0xffff_ffff_ffff_fe00;
/// In an L1 or L2 entry: the cluster is exclusive to the disk, so it is written in place.
const IS_COPIED: u64 = 1 << 63;
/// In an L2 entry: the cluster is compressed.
const IS_COMPRESSED: u64 = 1 << 62;
/// L2 tables checked when an image is opened, in bytes: those of 128 GiB with clusters of 64 KiB, which takes
/// 256 reads. The rest is checked before the guest first writes there; by then a formerly free cluster may
/// have been allocated.
const CHECKED_AT_OPEN: u64 = 16 << 20;

/// The clusters of an image's tables, in order, and which of its L2 tables have been checked.
#[derive(Debug)]
pub(super) struct Tables {
    cluster_bits: u32,
    clusters: Vec<(u64, Table)>,
    counts: Counts,
    l1: u64,
    /// Length of the file when it was opened.
    len: u64,
    /// A bit per L1 entry.
    checked: Vec<u64>,
}

impl Tables {
    /// Reads the upper-level tables, checks that each has a count and that none overlaps another, and checks
    /// as many L2 tables as are reasonable at start-up.
    pub(super) fn check(mut file: &File, header: &Header) -> Result<Self, Problem> {
        let len = file.seek(SeekFrom::End(0))?;
        let bits = header.cluster_bits;
        let (l1_entries, l1) = header.l1;
        let (table_clusters, table) = header.refcount_table;
        let l1_len = u64::from(l1_entries) * 8;
        let table_len = u64::from(table_clusters) << bits;
        let blocks: Vec<u64> =
            entries(file, table, table_len)?.map(|entry| entry & REFCOUNT_OFFSET).collect();
        let l1_bytes = read_padded(file, l1, l1_len as usize)?;
        let l2s = || words(&l1_bytes).filter(|entry| entry & L1_OFFSET != 0);
        let mut found = vec![TableEntry::of(0, Table::Header)];
        found.extend(
            (0..l1_len.div_ceil(1 << bits)).map(|index| TableEntry::of((l1 >> bits) + index, Table::L1)),
        );
        found.extend(
            (0..u64::from(table_clusters))
                .map(|index| TableEntry::of((table >> bits) + index, Table::RefcountTable)),
        );
        for (at, table, is_copied) in l2s()
            .map(|entry| (entry & L1_OFFSET, Table::L2, entry & IS_COPIED != 0))
            .chain(blocks.iter().filter(|at| **at != 0).map(|at| (*at, Table::RefcountBlock, false)))
        {
            if misplaced(at, bits) {
                return Err(Problem::Image(Refusal::Misplaced { table, at }));
            }
            found.push(TableEntry { cluster: at >> bits, table, is_copied });
        }
        found.extend(snapshots::tables(file, header)?);
        found.sort_by_key(|entry| entry.cluster);
        let mut counts = Counts::new(bits, header.refcount_order, blocks);
        for same in found.chunk_by(|one, other| one.cluster == other.cluster) {
            check_end(same[0].cluster << bits, len)?;
            check_cluster(same, counts.of(file, same[0].cluster)?, bits)?;
        }
        found.dedup_by_key(|entry| entry.cluster);
        let clusters = found.into_iter().map(|entry| (entry.cluster, entry.table)).collect();
        let checked = vec![0; (l1_entries as usize).div_ceil(64)];
        let mut tables = Self { cluster_bits: bits, clusters, counts, l1, len, checked };
        let at_open = (CHECKED_AT_OPEN >> bits) as usize;
        for (index, entry) in
            (0..).zip(words(&l1_bytes)).filter(|(_, entry)| entry & L1_OFFSET != 0).take(at_open)
        {
            tables.check_l2(file, index, entry & L1_OFFSET)?;
        }
        Ok(tables)
    }

    /// Checks the L2 tables of these bytes of the disk, unless they have been. Must be called before they are
    /// written for the first time.
    pub(super) fn check_data(&mut self, file: &File, range: Range<u64>) -> Result<(), Problem> {
        // An L1 entry maps a cluster of 8-byte entries.
        let bits = 2 * self.cluster_bits - 3;
        let last = range.end.saturating_sub(1).max(range.start);
        (range.start >> bits..=last >> bits).try_for_each(|index| self.check_index(file, index))
    }

    fn check_index(&mut self, file: &File, index: u64) -> Result<(), Problem> {
        let is_checked = usize::try_from(index / 64)
            .ok()
            .and_then(|word| self.checked.get(word))
            .is_none_or(|word| word >> (index % 64) & 1 != 0);
        if is_checked {
            return Ok(());
        }
        // Neither this entry nor its table has changed since the image was opened.
        let entry = entries(file, self.l1 + index * 8, 8)?.next().unwrap_or_default();
        self.counts.forget();
        self.check_l2(file, index, entry & L1_OFFSET)
    }

    /// Checks the L2 table at `at`, if it exists: data must start at a cluster before the end of the file, have a
    /// reference count, of 1 if it is written in place, and must not overlap tables.
    fn check_l2(&mut self, file: &File, index: u64, at: u64) -> Result<(), Problem> {
        if at != 0 {
            let bytes = read_padded(file, at, 1 << self.cluster_bits)?;
            if let Some(at) = words(&bytes).map(uncompressed_at).find(|at| misplaced(*at, self.cluster_bits))
            {
                return Err(Problem::Image(Refusal::MisplacedData { at }));
            }
            let mut places: Vec<Place> =
                words(&bytes).filter_map(|entry| Place::of(entry, self.cluster_bits)).collect();
            // Sorted, so that each block of counts is read once.
            places.sort_unstable_by_key(|place| place.clusters.start);
            for Place { clusters, is_copied } in places {
                check_end(clusters.start << self.cluster_bits, self.len)?;
                for cluster in clusters {
                    let at = cluster << self.cluster_bits;
                    let count = self.counts.of(file, cluster)?;
                    if is_copied && count != 1 {
                        return Err(Problem::Image(Refusal::NotOne { what: "data", at, count }));
                    }
                    if count == 0 {
                        return Err(Problem::Image(Refusal::UncountedData { at }));
                    }
                    if self.clusters.binary_search_by_key(&cluster, |(cluster, _)| *cluster).is_ok() {
                        return Err(Problem::Image(Refusal::DataOverTable { at }));
                    }
                }
            }
        }
        if let Some(word) = self.checked.get_mut((index / 64) as usize) {
            *word |= 1 << (index % 64);
        }
        Ok(())
    }

    /// Whether this range of the image belongs to a table. The refcount table, which moves when it grows,
    /// isn't included.
    pub(super) fn is_at(&self, offset: u64, len: u64) -> bool {
        let first = offset >> self.cluster_bits;
        let last = offset.saturating_add(len.saturating_sub(1)) >> self.cluster_bits;
        let start = self.clusters.partition_point(|(cluster, _)| *cluster < first);
        let here = self.clusters[start..].iter().take_while(|(cluster, _)| *cluster <= last);
        here.into_iter().any(|(_, table)| *table != Table::RefcountTable)
    }
}

/// The location of data according to an L2 entry.
pub(super) struct Place {
    pub(super) clusters: Range<u64>,
    /// Written in place.
    is_copied: bool,
}

impl Place {
    /// `None` if the entry has no offset. A cluster that reads as zeros may have one.
    pub(super) fn of(entry: u64, cluster_bits: u32) -> Option<Self> {
        if entry & IS_COMPRESSED == 0 {
            let first = (entry & L1_OFFSET) >> cluster_bits;
            return (first != 0)
                .then_some(Self { clusters: first..first + 1, is_copied: entry & IS_COPIED != 0 });
        }
        // The offset in bytes, and above it the number of additional 512-byte sectors, including partial
        // ones.
        let offset_bits = 62 - (cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        let further = (entry & (IS_COMPRESSED - 1)) >> offset_bits;
        let last = (offset & !511) + further * 512 + 511;
        Some(Self { clusters: offset >> cluster_bits..(last >> cluster_bits) + 1, is_copied: false })
    }
}

/// The offset in an L2 entry, 0 if it has none or its cluster is compressed.
fn uncompressed_at(entry: u64) -> u64 {
    if entry & IS_COMPRESSED == 0 { entry & L1_OFFSET } else { 0 }
}

/// Checks the offset of a cluster in a file of `len` bytes. The last cluster may be cut off, as QEMU writes it.
fn check_end(at: u64, len: u64) -> Result<(), Refusal> {
    if at < len { Ok(()) } else { Err(Refusal::BeyondEnd { at, len }) }
}

/// Checks a cluster that all of these tables share, given its reference count.
fn check_cluster(tables: &[TableEntry], count: u64, bits: u32) -> Result<(), Refusal> {
    let TableEntry { cluster, table, .. } = tables[0];
    let at = cluster << bits;
    let is_l2 = |entry: &TableEntry| matches!(entry.table, Table::L2 | Table::SnapshotL2);
    let own = tables.iter().filter(|entry| entry.table == Table::L2).count();
    // Snapshots share L2 tables with each other and with the disk; everything else has one user.
    if let [over, other, ..] = tables
        && (own > 1 || !tables.iter().all(is_l2))
    {
        return Err(Refusal::Overlapping { table: other.table, over: over.table, at });
    }
    let users = tables.len() as u64;
    if count == 0 {
        return Err(Refusal::Uncounted { table, at });
    }
    if count < users {
        return Err(Refusal::Undercounted { table, at, count, users });
    }
    if tables.iter().any(|entry| entry.is_copied) && count > 1 {
        return Err(Refusal::NotOne { what: "a level 2 table", at, count });
    }
    Ok(())
}

/// 8-byte big-endian entries.
pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_of_data_is_what_its_entry_says() {
        let of = |entry| Place::of(entry, 16).map(|place| (place.clusters, place.is_copied));
        assert_eq!([0, 1, IS_COPIED].map(of), [None, None, None]);
        assert_eq!(of(0x5_0000 | IS_COPIED), Some((5..6, true)));
        assert_eq!(of(0x5_0001), Some((5..6, false)), "zeros with a place");
        // The sector count starts at bit 54 with clusters of 64 KiB.
        assert_eq!(of(IS_COMPRESSED | 0x5_fe80), Some((5..6, false)));
        assert_eq!(of(IS_COMPRESSED | 0x5_fe80 | 1 << 54), Some((5..7, false)), "into the next cluster");
        assert_eq!(of(IS_COMPRESSED | 0x5_fc80 | 1 << 54), Some((5..6, false)));
    }

    #[test]
    fn bytes_of_a_table_are_found_and_those_around_it_are_not() {
        let tables = Tables {
            cluster_bits: 9,
            clusters: vec![(0, Table::Header), (3, Table::L1), (5, Table::RefcountTable)],
            counts: Counts::new(9, 4, Vec::new()),
            l1: 3 << 9,
            len: 6 << 9,
            checked: Vec::new(),
        };
        assert!(tables.is_at(3 << 9, 1) && tables.is_at(2 << 9, 513) && tables.is_at((4 << 9) - 1, 1));
        assert!(!tables.is_at(4 << 9, 512) && !tables.is_at(2 << 9, 512) && !tables.is_at(5 << 9, 512));
    }
}
