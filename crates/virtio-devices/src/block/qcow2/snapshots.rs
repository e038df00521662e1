//! Tables of an image's internal snapshots (QEMU, docs/interop/qcow2.rst, "Snapshots").

use std::fs::File;

use super::entries::{L1_OFFSET, Problem, TableEntry, entries, misplaced, read_padded};
use super::header::Header;
use super::refusal::{Refusal, Table};

/// Maximum number of snapshots, as in QEMU (block/qcow2.h, QCOW_MAX_SNAPSHOTS): each costs a read of its
/// entry.
const COUNT_MAX: u32 = 65_536;
/// Maximum length of the snapshot table, which isn't kept in memory (QCOW_MAX_SNAPSHOTS_SIZE).
const TABLE_LEN_MAX: u64 = 64 << 20;
/// Maximum total length of the snapshots' L1 tables. Each 8-byte entry may refer to a table that takes 16
/// bytes in memory, so these take at most 128 MiB, twice the maximum for the disk's own table. A disk of 1
/// TiB with clusters of 64 KiB has 16 KiB per snapshot, so that 4,096 snapshots can be checked; an image with
/// more isn't written.
const L1_LEN_MAX: u64 = 64 << 20;

/// Fixed length of an entry.
const ENTRY_LEN: usize = 40;
/// Maximum length of the extra data that newer versions add to an entry (QCOW_MAX_SNAPSHOT_EXTRA_DATA).
const EXTRA_LEN_MAX: u32 = 1024;

/// The clusters of the snapshot table and of each snapshot's tables. Shared clusters are included once per
/// user.
pub(super) fn tables(file: &File, header: &Header) -> Result<Vec<TableEntry>, Problem> {
    let bits = header.cluster_bits;
    let (count, start) = header.snapshots;
    let mut found = Vec::new();
    if count == 0 {
        return Ok(found);
    }
    if count > COUNT_MAX {
        return Err(Problem::Image(Refusal::Damaged("the number of snapshots", count.into())));
    }
    let place = |table, at: u64| {
        if misplaced(at, bits) { Err(Refusal::Misplaced { table, at }) } else { Ok(at >> bits) }
    };
    let first = place(Table::Snapshots, start)?;
    let (mut at, mut l1_len) = (start, 0_u64);
    for _ in 0..count {
        let entry = SnapshotEntry::read(file, at)?;
        at += entry.len;
        l1_len += entry.l1_len;
        if at - start > TABLE_LEN_MAX || l1_len > L1_LEN_MAX {
            return Err(Problem::Image(Refusal::TooManySnapshots));
        }
        if entry.l1_len == 0 {
            continue;
        }
        let l1 = place(Table::SnapshotL1, entry.l1)?;
        found.extend(
            (l1..l1 + entry.l1_len.div_ceil(1 << bits))
                .map(|cluster| TableEntry::of(cluster, Table::SnapshotL1)),
        );
        for l2 in entries(file, entry.l1, entry.l1_len)?.map(|entry| entry & L1_OFFSET).filter(|at| *at != 0)
        {
            found.push(TableEntry::of(place(Table::SnapshotL2, l2)?, Table::SnapshotL2));
        }
    }
    let clusters = (at - start).div_ceil(1 << bits);
    found.extend((first..first + clusters).map(|cluster| TableEntry::of(cluster, Table::Snapshots)));
    Ok(found)
}

/// The relevant fields of an entry.
struct SnapshotEntry {
    len: u64,
    l1: u64,
    l1_len: u64,
}

impl SnapshotEntry {
    fn read(file: &File, at: u64) -> Result<Self, Problem> {
        let bytes = read_padded(file, at, ENTRY_LEN)?;
        let field = |range: std::ops::Range<usize>| {
            bytes[range].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
        };
        let extra_len = field(36..40);
        if extra_len > EXTRA_LEN_MAX.into() {
            return Err(Problem::Image(Refusal::Damaged("a snapshot's extra length", extra_len)));
        }
        // The lengths of its id and of its name.
        let len = (ENTRY_LEN as u64 + extra_len + field(12..14) + field(14..16)).next_multiple_of(8);
        Ok(Self { len, l1: field(0..8), l1_len: field(8..12) * 8 })
    }
}
