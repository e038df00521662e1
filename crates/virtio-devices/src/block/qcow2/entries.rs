//! Table entries of an image.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::refusal::{Refusal, Table};

/// The offset in an entry of an L1 or L2 table.
pub(super) const L1_OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Why an image can't be written.
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

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Image(refusal)
    }
}

/// A cluster of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableEntry {
    pub(super) cluster: u64,
    pub(super) table: Table,
    /// The COPIED flag: it is written in place.
    pub(super) is_copied: bool,
}

impl TableEntry {
    pub(super) fn of(cluster: u64, table: Table) -> Self {
        Self { cluster, table, is_copied: false }
    }
}

/// Whether no cluster starts at this offset.
pub(super) fn misplaced(at: u64, bits: u32) -> bool {
    // Offsets in an image have 56 bits.
    at & ((1 << bits) - 1) != 0 || at >> 56 != 0
}

/// Reads 8-byte big-endian entries.
pub(super) fn entries(file: &File, offset: u64, len: u64) -> io::Result<impl Iterator<Item = u64>> {
    let bytes = read_padded(file, offset, len as usize)?;
    let count = bytes.len() / 8;
    Ok((0..count).map(move |index| u64::from_be_bytes(bytes.as_chunks().0[index])))
}

/// Reads from `offset`, with zeros beyond the end of the file: the last table of an image may be truncated.
pub(super) fn read_padded(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
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
