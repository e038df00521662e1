//! Page numbers and ranges from the driver, with bounded work.

use vmm_virtio::{Buffers, Fault};

/// log2 of the balloon's page size, whatever the guest's page size (virtio 1.2 §5.5.6).
const PAGE_SHIFT: u32 = 12;
pub(super) const PAGE_LEN: u64 = 1 << PAGE_SHIFT;

/// Maximum number of page numbers processed per chain; further pages stay the guest's. Linux sends 256 per
/// chain (VIRTIO_BALLOON_ARRAY_PFNS_MAX), Windows 1024. A descriptor may have 4 GiB, and all descriptors of a
/// chain may refer to the same memory: without a bound, one chain could keep the thread busy for hours.
const NUMBERS_PER_CHAIN: u64 = 16384;
/// Numbers sorted at a time: 8 KiB of stack, plus their bytes.
const NUMBERS_AT_ONCE: usize = 1024;

/// Cost limit of a turn. A range costs 1, plus 1 per MiB. Discarding 8 GiB of touched memory takes the host
/// about a second, 8192 ranges about 10 ms.
const COST_OF_A_TURN: u64 = 8192;

/// The remaining work of a queue before its thread handles other events, such as a stop.
#[derive(Debug)]
pub(super) struct Turn {
    left: u64,
}

impl Default for Turn {
    fn default() -> Self {
        Self { left: COST_OF_A_TURN }
    }
}

impl Turn {
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }

    pub(super) fn spend(&mut self, cost: u64) {
        self.left = self.left.saturating_sub(cost);
    }
}

/// Calls `discard` with the pages whose numbers (le32) are in `numbers`, merging neighbours. Returns the
/// number of bytes discarded, and whether that was all.
///
/// # Errors
/// The numbers can't be read.
pub(super) fn discard_numbered(
    numbers: Buffers<'_>,
    turn: &mut Turn,
    mut discard: impl FnMut(u64, u64) -> bool,
) -> Result<(u64, bool), Fault> {
    let count = (numbers.len() / 4).min(NUMBERS_PER_CHAIN);
    let mut is_all = count * 4 == numbers.len();
    let (mut taken, mut left, mut rest) = (0, count as usize, numbers);
    let mut bytes = [[0; 4]; NUMBERS_AT_ONCE];
    let mut sorted = [0; NUMBERS_AT_ONCE];
    // An empty chain has a cost, too.
    turn.spend(1);
    while left > 0 {
        let (bytes, sorted) =
            (&mut bytes[..left.min(NUMBERS_AT_ONCE)], &mut sorted[..left.min(NUMBERS_AT_ONCE)]);
        rest.read(bytes.as_flattened_mut())?;
        let (_, behind) = rest.split_at(4 * bytes.len() as u64).expect("so many were read just now");
        (left, rest) = (left - bytes.len(), behind);
        sorted.iter_mut().zip(bytes).for_each(|(to, from)| *to = u32::from_le_bytes(*from));
        sorted.sort_unstable();
        // Duplicates count as one page.
        for run in sorted.chunk_by(|page, next| next - page <= 1) {
            let (first, last) = (u64::from(run[0]), u64::from(run[run.len() - 1]));
            let len = (last - first + 1) << PAGE_SHIFT;
            let is_taken = discard_one(first << PAGE_SHIFT, len, turn, &mut discard);
            taken += if is_taken { len } else { 0 };
            is_all &= is_taken;
        }
    }
    Ok((taken, is_all))
}

/// Calls `discard` with each range of `ranges`. Returns the same as [`discard_numbered`].
///
/// # Errors
/// A range isn't memory.
pub(super) fn discard_ranges(
    ranges: Buffers<'_>,
    turn: &mut Turn,
    mut discard: impl FnMut(u64, u64) -> bool,
) -> Result<(u64, bool), Fault> {
    let (mut taken, mut is_all, mut rest) = (0, true, ranges);
    turn.spend(1);
    ranges.slices(|slice| {
        let len = slice.len() as u64;
        if let (Some(gpa), Some((_, behind))) = (rest.gpa(), rest.split_at(len)) {
            let is_taken = discard_one(gpa, len, turn, &mut discard);
            taken += if is_taken { len } else { 0 };
            (is_all, rest) = (is_all && is_taken, behind);
        }
        Ok(())
    })?;
    Ok((taken, is_all))
}

fn discard_one(gpa: u64, len: u64, turn: &mut Turn, discard: &mut impl FnMut(u64, u64) -> bool) -> bool {
    turn.spend(1 + (len >> 20));
    discard(gpa, len)
}
