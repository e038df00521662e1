//! The order in which an image's writes reach stable storage.
//!
//! imago orders its writes, but the host's page cache brings them to the disk in any order. After a power
//! failure, a table may therefore refer to data or a table that isn't there. So the file is synced first where
//! that would lose what the guest has flushed:
//!
//! | before a write of | must be on stable storage |
//! |---|---|
//! | an L1 entry, or the tables' locations in the header | everything |
//! | an L2 table | data, including what was copied for a partly written cluster |
//! | a cluster that an L2 table or an L1 entry no longer refers to | that table or entry |
//! | a refcount | nothing: the image is marked dirty, and the repair counts anew |
//!
//! Only what was written since the last sync needs one: once for each group of L2 tables that imago writes at a
//! flush, and not for data that is overwritten in place.
//!
//! A failed sync or write of a table is the last one; see [`ImageFailure`].

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entries::{L1_OFFSET, entries, read_padded};
use super::failure::ImageFailure;
use super::header::Header;
use super::tables::{Place, REFCOUNT_OFFSET, words};

/// Syncs a file before writes that depend on earlier ones.
#[derive(Debug)]
pub(super) struct WriteOrder {
    file: Arc<File>,
    cluster_bits: u32,
    state: Mutex<State>,
    failure: ImageFailure,
}

#[derive(Debug)]
struct State {
    l1: Pointers,
    refcounts: Pointers,
    /// What was written since the last sync.
    has_data: bool,
    has_tables: bool,
    /// Clusters to which a table referred until a write since the last sync.
    released: HashSet<u64>,
}

/// A table of 8-byte entries that are the offsets of other tables.
#[derive(Debug)]
struct Pointers {
    range: Range<u64>,
    targets: HashSet<u64>,
}

/// What a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    L1,
    L2,
    /// The refcount table or a refcount block.
    Refcounts,
    /// Data, or a table to which nothing refers yet.
    Data,
}

impl WriteOrder {
    /// For the image in `file`, all of which is on stable storage or needn't be.
    pub(super) fn new(file: Arc<File>, header: &Header, failure: ImageFailure) -> io::Result<Self> {
        let state = State::read(&file, header.cluster_bits, header.l1, header.refcount_table)?;
        Ok(Self { file, cluster_bits: header.cluster_bits, state: Mutex::new(state), failure })
    }

    /// Must precede a write of `len` bytes at `offset`, outside the header, whose result is for
    /// [`end`](Self::end). `bytes` copies them.
    pub(super) fn begin(&self, offset: u64, len: u64, bytes: impl FnOnce() -> Vec<u8>) -> io::Result<Kind> {
        self.failure.check()?;
        let kind = self.state().kind(offset, len);
        self.end(kind, self.prepare(kind, (offset, len), bytes))?;
        Ok(kind)
    }

    /// Returns the result of a write.
    pub(super) fn end(&self, kind: Kind, result: io::Result<()>) -> io::Result<()> {
        if kind == Kind::Data { result } else { self.failure.note(result) }
    }

    fn prepare(
        &self,
        kind: Kind,
        (offset, len): (u64, u64),
        bytes: impl FnOnce() -> Vec<u8>,
    ) -> io::Result<()> {
        let must_sync = self.state().must_sync(kind, self.clusters(offset, len));
        if must_sync {
            self.sync()?;
        }
        match kind {
            Kind::Data => self.state().has_data = true,
            Kind::L1 => {
                let (old, new) = (read_padded(&self.file, offset, len as usize)?, bytes());
                self.state().replace_tables(&old, &new, self.cluster_bits);
            }
            Kind::L2 => {
                let (old, new) = (read_padded(&self.file, offset, len as usize)?, bytes());
                let released = self.released(&old, &new);
                let mut state = self.state();
                state.has_tables = true;
                state.released.extend(released);
            }
            Kind::Refcounts => {
                let new = bytes();
                self.state().add_refcount_blocks(offset, &new);
            }
        }
        Ok(())
    }

    /// Must precede a write of zeros or a discard outside the header.
    pub(super) fn begin_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        self.failure.check()?;
        // No table is written in this way.
        if self.state().must_sync(Kind::Data, self.clusters(offset, len)) {
            self.sync()?;
        }
        self.state().has_data = true;
        Ok(())
    }

    /// Executes `write`, a change of the tables' locations in the header to these (entries or clusters, and
    /// offset). Everything is on stable storage before and after it.
    pub(super) fn move_tables(
        &self,
        (l1, refcount_table): ((u32, u64), (u32, u64)),
        write: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let moved = || {
            self.sync()?;
            write()?;
            self.sync()?;
            *self.state() = State::read(&self.file, self.cluster_bits, l1, refcount_table)?;
            Ok(())
        };
        self.failure.note(moved())
    }

    /// Brings all writes to stable storage.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.failure.check()?;
        self.failure.note(self.file.sync_data())?;
        let mut state = self.state();
        (state.has_data, state.has_tables) = (false, false);
        state.released.clear();
        Ok(())
    }

    /// The clusters to which these entries of an L2 table refer before a write, and not after it.
    fn released(&self, old: &[u8], new: &[u8]) -> HashSet<u64> {
        let clusters = |entry| Place::of(entry, self.cluster_bits).map_or(0..0, |place| place.clusters);
        let changed = words(old).zip(words(new)).filter(|(old, new)| old != new);
        changed.flat_map(|(old, new)| clusters(old).filter(move |at| !clusters(new).contains(at))).collect()
    }

    fn clusters(&self, offset: u64, len: u64) -> Range<u64> {
        offset >> self.cluster_bits..offset.saturating_add(len).div_ceil(1 << self.cluster_bits)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read(file: &File, bits: u32, l1: (u32, u64), refcount_table: (u32, u64)) -> io::Result<Self> {
        let (l1_entries, l1) = l1;
        let (clusters, table) = refcount_table;
        Ok(Self {
            l1: Pointers::read(file, l1, u64::from(l1_entries) * 8, L1_OFFSET)?,
            refcounts: Pointers::read(file, table, u64::from(clusters) << bits, REFCOUNT_OFFSET)?,
            has_data: false,
            has_tables: false,
            released: HashSet::new(),
        })
    }

    fn kind(&self, offset: u64, len: u64) -> Kind {
        if self.l1.contains(offset, len) {
            Kind::L1
        } else if self.l1.targets.contains(&offset) {
            Kind::L2
        } else if self.refcounts.contains(offset, len) || self.refcounts.targets.contains(&offset) {
            Kind::Refcounts
        } else {
            Kind::Data
        }
    }

    /// Whether a write to `clusters` depends on one since the last sync.
    fn must_sync(&self, kind: Kind, mut clusters: Range<u64>) -> bool {
        match kind {
            Kind::L1 => self.has_data || self.has_tables,
            Kind::L2 => self.has_data,
            Kind::Refcounts => false,
            Kind::Data => !self.released.is_empty() && clusters.any(|at| self.released.contains(&at)),
        }
    }

    /// Replaces these entries of the L1 table.
    fn replace_tables(&mut self, old: &[u8], new: &[u8], cluster_bits: u32) {
        self.has_tables = true;
        for (old, new) in words(old).zip(words(new)) {
            let (old, new) = (old & L1_OFFSET, new & L1_OFFSET);
            if old != new && self.l1.targets.remove(&old) {
                self.released.insert(old >> cluster_bits);
            }
            self.l1.targets.extend((new != 0).then_some(new));
        }
    }

    /// Adds what these bytes at `offset` refer to, if they belong to the refcount table.
    fn add_refcount_blocks(&mut self, offset: u64, new: &[u8]) {
        if self.refcounts.contains(offset, new.len() as u64) {
            let blocks = words(new).map(|entry| entry & REFCOUNT_OFFSET);
            self.refcounts.targets.extend(blocks.filter(|at| *at != 0));
        }
    }
}

impl Pointers {
    fn read(file: &File, offset: u64, len: u64, mask: u64) -> io::Result<Self> {
        let targets = entries(file, offset, len)?.map(|entry| entry & mask).filter(|at| *at != 0).collect();
        Ok(Self { range: offset..offset.saturating_add(len), targets })
    }

    fn contains(&self, offset: u64, len: u64) -> bool {
        self.range.contains(&offset) && offset.saturating_add(len) <= self.range.end
    }
}
