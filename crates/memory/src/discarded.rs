//! Which parts of a copy-on-write mapping no longer show the file.

use std::collections::BTreeMap;
use std::ops::Range;

/// Maximum number of places at which RAM may be cut into mappings. Linux allows a process 65530 mappings by default
/// (vm.max_map_count), and the monitor needs some for its threads and its heap, whatever the guest discards.
pub(crate) const MAX_CUTS: usize = 48 << 10;

/// The address ranges that anonymous memory has replaced. Their order, number and overlaps are the guest's choice.
///
/// It keeps an entry at each address at which the kernel may have cut a mapping in two. The kernel merges neighbours where it can, so
/// there are at most as many mappings more than without discards.
#[derive(Debug, Default)]
pub(crate) struct Discarded {
    /// Whether the memory from an address to that of the next entry has been replaced. Nothing has below the first.
    from: BTreeMap<u64, bool>,
}

impl Discarded {
    /// Whether all of `range` has been replaced.
    pub(crate) fn has(&self, range: &Range<u64>) -> bool {
        self.is_replaced(range.start) && self.from.range(range.clone()).all(|(_, replaced)| *replaced)
    }

    /// Whether another range can be added.
    pub(crate) fn has_room(&self) -> bool {
        self.from.len() + 2 <= MAX_CUTS
    }

    /// Adds `range`, which one new mapping has replaced.
    pub(crate) fn add(&mut self, range: &Range<u64>) {
        let after = self.is_replaced(range.end);
        let inside: Vec<u64> = self.from.range(range.clone()).map(|(at, _)| *at).collect();
        for at in inside {
            self.from.remove(&at);
        }
        self.from.insert(range.start, true);
        self.from.insert(range.end, after);
    }

    /// The first part of `range` that still shows the file; empty, at its end, if there is none.
    pub(crate) fn first_kept(&self, range: Range<u64>) -> Range<u64> {
        let start = if self.is_replaced(range.start) {
            self.next(&range, false).unwrap_or(range.end)
        } else {
            range.start
        };
        start..self.next(&(start..range.end), true).unwrap_or(range.end)
    }

    /// The first entry in `range` that is or isn't of replaced memory.
    fn next(&self, range: &Range<u64>, is_replaced: bool) -> Option<u64> {
        self.from.range(range.clone()).find(|(_, replaced)| **replaced == is_replaced).map(|(at, _)| *at)
    }

    fn is_replaced(&self, at: u64) -> bool {
        self.from.range(..=at).next_back().is_some_and(|(_, replaced)| *replaced)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn discarded(ranges: &[Range<u64>]) -> Discarded {
        let mut discarded = Discarded::default();
        ranges.iter().for_each(|range| discarded.add(range));
        discarded
    }

    #[test]
    fn range_across_two_that_touch_has_been_discarded() {
        let discarded = discarded(&[10..20, 20..30]);
        assert!(discarded.has(&(10..30)) && discarded.has(&(15..25)));
        assert!(!discarded.has(&(9..30)) && !discarded.has(&(10..31)) && !discarded.has(&(30..31)));
    }

    #[test]
    fn range_over_others_is_one_mapping() {
        assert_eq!(discarded(&[10..20, 30..40, 50..60, 5..70]).from.len(), 2);
    }

    #[test]
    fn room_ends_before_the_last_two_cuts() {
        let mut discarded = Discarded::default();
        (0..MAX_CUTS as u64 / 2).for_each(|at| {
            assert!(discarded.has_room());
            discarded.add(&(4 * at..4 * at + 1));
        });
        assert!(!discarded.has_room());
    }

    proptest! {
        /// As a list of all pages says.
        #[test]
        fn ranges_are_those_of_the_pages(ranges in prop::collection::vec((0u64..40, 1u64..12), 0..12)) {
            let ranges: Vec<_> = ranges.iter().map(|(start, len)| *start..start + len).collect();
            let discarded = discarded(&ranges);
            let is_replaced = |page: u64| ranges.iter().any(|range| range.contains(&page));
            for start in 0..52 {
                for end in start + 1..53 {
                    prop_assert_eq!(discarded.has(&(start..end)), (start..end).all(is_replaced));
                    let first = (start..end).find(|page| !is_replaced(*page)).unwrap_or(end);
                    let last = (first..end).find(|page| is_replaced(*page)).unwrap_or(end);
                    prop_assert_eq!(discarded.first_kept(start..end), first..last);
                }
            }
        }
    }
}
