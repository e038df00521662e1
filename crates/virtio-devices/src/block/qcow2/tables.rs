//! Where an image's tables are, and whether they are safe from its data.
//!
//! A cluster that nothing counts as in use is the next one that data goes to, and an entry may name any cluster as the guest's. So
//! before an image is written, each of its tables must be counted, and none lie over another; and nothing is written to where one
//! is. Tables of internal snapshots aren't looked at.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::header::Header;
use super::refusal::{Refusal, Table};

/// Of an entry of the level 1 table, the offset of what it names.
const L1_OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Of an entry of the refcount table.
const REFCOUNT_OFFSET: u64 = 0xffff_ffff_ffff_fe00;

/// Why an image isn't written.
#[derive(Debug)]
pub(super) enum Problem {
    Image(Refusal),
    Host(io::Error),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

/// The clusters of an image's tables, in order.
#[derive(Debug)]
pub(super) struct Tables {
    cluster_bits: u32,
    clusters: Vec<(u64, Table)>,
}

impl Tables {
    /// Reads the tables of tables, and checks that each is counted and none lies over another.
    pub(super) fn check(file: &File, header: &Header) -> Result<Self, Problem> {
        let bits = header.cluster_bits;
        let (l1_entries, l1) = header.l1;
        let (table_clusters, table) = header.refcount_table;
        let l1_len = u64::from(l1_entries) * 8;
        let table_len = u64::from(table_clusters) << bits;
        let blocks: Vec<u64> =
            entries(file, table, table_len)?.map(|entry| entry & REFCOUNT_OFFSET).collect();
        let l2s = entries(file, l1, l1_len)?.map(|entry| entry & L1_OFFSET).filter(|at| *at != 0);
        let mut found = vec![(0, Table::Header)];
        found.extend((0..l1_len.div_ceil(1 << bits)).map(|index| ((l1 >> bits) + index, Table::L1)));
        found.extend(
            (0..u64::from(table_clusters)).map(|index| ((table >> bits) + index, Table::RefcountTable)),
        );
        for (at, kind) in l2s
            .map(|at| (at, Table::L2))
            .chain(blocks.iter().filter(|at| **at != 0).map(|at| (*at, Table::RefcountBlock)))
        {
            if at & ((1 << bits) - 1) != 0 {
                return Err(Problem::Image(Refusal::Misplaced { table: kind, at }));
            }
            found.push((at >> bits, kind));
        }
        found.sort_unstable_by_key(|(cluster, _)| *cluster);
        if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (table, over) = (pair[1].1, pair[0].1);
            return Err(Problem::Image(Refusal::Overlapping { table, over, at: pair[0].0 << bits }));
        }
        let tables = Self { cluster_bits: bits, clusters: found };
        tables.check_counted(file, &blocks, header.refcount_order)?;
        Ok(tables)
    }

    fn check_counted(&self, file: &File, blocks: &[u64], order: u32) -> Result<(), Problem> {
        let block_len = 1_usize << self.cluster_bits;
        let per_block = (block_len as u64 * 8) >> order;
        // The clusters are in order, so each block is read once.
        let (mut read, mut block) = (None, Vec::new());
        for &(cluster, table) in &self.clusters {
            let index = cluster / per_block;
            if read != Some(index) {
                let at = usize::try_from(index).ok().and_then(|index| blocks.get(index)).copied();
                block = match at {
                    None | Some(0) => vec![0; block_len],
                    Some(at) => read_padded(file, at, block_len)?,
                };
                read = Some(index);
            }
            if !is_counted(&block, cluster % per_block, order) {
                return Err(Problem::Image(Refusal::Uncounted { table, at: cluster << self.cluster_bits }));
            }
        }
        Ok(())
    }

    /// Whether bytes from `offset` of the image are a table's. The refcount table moves when it grows, and isn't looked for.
    pub(super) fn is_at(&self, offset: u64, len: u64) -> bool {
        let first = offset >> self.cluster_bits;
        let last = offset.saturating_add(len.saturating_sub(1)) >> self.cluster_bits;
        let start = self.clusters.partition_point(|(cluster, _)| *cluster < first);
        let here = self.clusters[start..].iter().take_while(|(cluster, _)| *cluster <= last);
        here.into_iter().any(|(_, table)| *table != Table::RefcountTable)
    }
}

/// Whether the reference count of 2^`order` bits at this index of a block isn't 0.
fn is_counted(block: &[u8], index: u64, order: u32) -> bool {
    let index = index as usize;
    match order {
        // Those of less than a byte are in it from its lowest bits up.
        0..3 => {
            let (per_byte, bits) = (8_usize >> order, 1 << order);
            let mask = ((1_u16 << bits) - 1) as u8;
            block[index / per_byte] >> (index % per_byte * bits) & mask != 0
        }
        _ => {
            let len = 1 << (order - 3);
            block[index * len..][..len].iter().any(|byte| *byte != 0)
        }
    }
}

/// Entries of 8 bytes, big-endian.
fn entries(file: &File, offset: u64, len: u64) -> io::Result<impl Iterator<Item = u64>> {
    let bytes = read_padded(file, offset, len as usize)?;
    let count = bytes.len() / 8;
    Ok((0..count).map(move |index| {
        let mut entry = [0; 8];
        entry.copy_from_slice(&bytes[index * 8..][..8]);
        u64::from_be_bytes(entry)
    }))
}

/// What is at `offset`, with zeros behind the end of the file: the last table of an image may be cut short.
fn read_padded(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_each_width_are_found() {
        let block = [0b0000_0110, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let counted = |index, order| is_counted(&block, index, order);
        assert_eq!([0, 1, 2, 3].map(|index| counted(index, 0)), [false, true, true, false]);
        assert_eq!([0, 1, 2].map(|index| counted(index, 1)), [true, true, false]);
        assert_eq!([0, 1].map(|index| counted(index, 2)), [true, false]);
        assert_eq!([0, 1, 3].map(|index| counted(index, 3)), [true, false, true]);
        assert_eq!([0, 1, 2].map(|index| counted(index, 4)), [true, true, false]);
        assert_eq!([0, 1].map(|index| counted(index, 6)), [true, true]);
    }

    #[test]
    fn bytes_of_a_table_are_found_and_those_around_it_are_not() {
        let tables = Tables {
            cluster_bits: 9,
            clusters: vec![(0, Table::Header), (3, Table::L1), (5, Table::RefcountTable)],
        };
        assert!(tables.is_at(3 << 9, 1) && tables.is_at(2 << 9, 513) && tables.is_at((4 << 9) - 1, 1));
        assert!(!tables.is_at(4 << 9, 512) && !tables.is_at(2 << 9, 512) && !tables.is_at(5 << 9, 512));
    }
}
