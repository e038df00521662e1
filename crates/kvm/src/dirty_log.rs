//! Dirty page logs.

/// Page size of dirty logs in bytes.
const PAGE_LEN: u64 = 4096;

/// The pages of a memory slot that were written during some period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyPages {
    gpa: u64,
    /// One bit per page, starting at `gpa`, lowest bit first.
    bitmap: Vec<u64>,
}

impl DirtyPages {
    pub(crate) fn new(gpa: u64, bitmap: Vec<u64>) -> Self {
        Self { gpa, bitmap }
    }

    /// Number of pages written.
    pub fn count(&self) -> u64 {
        self.bitmap.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Guest-physical addresses of the 4 KiB pages that were written, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let pages = |(i, word): (usize, &u64)| {
            let (first, word) = (i as u64 * 64, *word);
            (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| first + bit)
        };
        self.bitmap.iter().enumerate().flat_map(pages).map(|page| self.gpa + page * PAGE_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirty_pages_are_in_order_from_the_slots_address_on() {
        // The first and last page of the first word, and the first page of the second.
        let pages = DirtyPages::new(0x10_0000, vec![1 << 63 | 1, 1]);
        assert_eq!(pages.iter().collect::<Vec<_>>(), [0x10_0000, 0x13_f000, 0x14_0000]);
        assert_eq!(pages.count(), 3);
    }

    #[test]
    fn dirty_pages_of_an_idle_guest_are_none() {
        let pages = DirtyPages::new(0, vec![0, 0]);
        assert_eq!((pages.count(), pages.iter().next()), (0, None));
    }
}
