//! Reference counts of an image, as stored in the file.

use std::fs::File;
use std::io;

use super::entries::read_padded;

/// log2 of the bytes read at a time, 4 KiB: a refcount block has up to 2 MiB, most of which isn't needed.
const PIECE_BITS: u32 = 12;

/// Location of the counts.
#[derive(Debug)]
pub(super) struct Counts {
    cluster_bits: u32,
    /// A count has 2^`order` bits.
    order: u32,
    /// Offset of each refcount block; 0 if it doesn't exist.
    blocks: Vec<u64>,
    /// The bytes read last, and their offset in the image.
    piece: Vec<u8>,
    at: Option<u64>,
}

impl Counts {
    pub(super) fn new(cluster_bits: u32, order: u32, blocks: Vec<u64>) -> Self {
        Self { cluster_bits, order, blocks, piece: Vec::new(), at: None }
    }

    /// Drops the cached bytes, because the image may have been changed.
    pub(super) fn forget(&mut self) {
        self.at = None;
    }

    /// The reference count of a cluster. Queries in ascending order cost one read per 4 KiB of counts.
    pub(super) fn of(&mut self, file: &File, cluster: u64) -> io::Result<u64> {
        // A byte has 8 bits, and all of these are powers of two.
        let per_block_bits = self.cluster_bits + 3 - self.order;
        let block = usize::try_from(cluster >> per_block_bits).ok().and_then(|index| self.blocks.get(index));
        let Some(block) = block.copied().filter(|at| *at != 0) else { return Ok(0) };
        let piece_bits = PIECE_BITS.min(self.cluster_bits);
        let (piece_len, per_piece_bits) = (1 << piece_bits, piece_bits + 3 - self.order);
        let index = cluster & ((1 << per_block_bits) - 1);
        let at =
            block.checked_add(index >> per_piece_bits << piece_bits).ok_or(io::ErrorKind::InvalidData)?;
        if self.at != Some(at) {
            self.piece = read_padded(file, at, piece_len)?;
            self.at = Some(at);
        }
        Ok(count(&self.piece, index & ((1 << per_piece_bits) - 1), self.order))
    }
}

/// Decodes the count of 2^`order` bits at this index.
fn count(bytes: &[u8], index: u64, order: u32) -> u64 {
    let index = index as usize;
    match order {
        // Counts smaller than a byte start at its lowest bits.
        0..3 => {
            let (per_byte, bits) = (8_usize >> order, 1 << order);
            let mask = ((1_u16 << bits) - 1) as u8;
            (bytes[index / per_byte] >> (index % per_byte * bits) & mask).into()
        }
        _ => {
            let len = 1 << (order - 3);
            bytes[index * len..][..len].iter().fold(0, |count, byte| count << 8 | u64::from(*byte))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn counts_of_each_width_are_read() {
        let bytes = [0b0000_0110, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1];
        let of = |index, order| count(&bytes, index, order);
        assert_eq!([0, 1, 2, 3].map(|index| of(index, 0)), [0, 1, 1, 0]);
        assert_eq!([0, 1, 2].map(|index| of(index, 1)), [2, 1, 0]);
        assert_eq!([0, 1].map(|index| of(index, 2)), [6, 0]);
        assert_eq!([0, 1, 3].map(|index| of(index, 3)), [6, 0, 1]);
        assert_eq!([0, 1, 7].map(|index| of(index, 4)), [0x600, 1, 0x201]);
        assert_eq!([0, 3].map(|index| of(index, 5)), [0x600_0001, 0x201]);
        assert_eq!([0, 1].map(|index| of(index, 6)), [0x600_0001_0000_0000, 0x201]);
    }

    /// Blocks of 64 KiB with 32,768 counts of 16 bits. The first is at 0x10000, the second doesn't exist, the
    /// third is at 0x20000.
    #[test]
    fn counts_are_found_in_their_blocks() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0, 7], 0x1_0000 + 2 * 5000).unwrap();
        file.write_all_at(&[0, 8], 0x2_fffe).unwrap();
        let mut counts = Counts::new(16, 4, vec![0x1_0000, 0, 0x2_0000]);
        let of = [5000, 4999, 5000 + 32768, 3 * 32768 - 1, 3 * 32768, u64::MAX];
        assert_eq!(of.map(|cluster| counts.of(&file, cluster).unwrap()), [7, 0, 0, 8, 0, 0]);
        // The cached bytes belong to another block.
        counts.of(&file, 5000).unwrap();
        file.write_all_at(&[0, 9], 0x1_0000 + 2 * 5000).unwrap();
        counts.forget();
        assert_eq!(counts.of(&file, 5000).unwrap(), 9);
    }
}
