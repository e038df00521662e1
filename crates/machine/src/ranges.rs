//! Lists of numbers in the kernel's format.

use std::fmt;
use std::ops::RangeInclusive;

/// Numbers in the kernel's list format: `0-3,8` (cpuset(7)).
pub(crate) struct Ranges(Vec<RangeInclusive<usize>>);

impl Ranges {
    /// `numbers` must be in ascending order.
    pub(crate) fn of(numbers: impl IntoIterator<Item = usize>) -> Self {
        let mut ranges: Vec<RangeInclusive<usize>> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some(last) if last.end() + 1 == number => *last = *last.start()..=number,
                _ => ranges.push(number..=number),
            }
        }
        Self(ranges)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match range.start() == range.end() {
                true => write!(f, "{comma}{}", range.start())?,
                false => write!(f, "{comma}{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_neighbours_only() {
        assert_eq!(Ranges::of([0, 1, 2, 4, 6, 7]).to_string(), "0-2,4,6-7");
        assert_eq!(Ranges::of([]).to_string(), "");
    }
}
