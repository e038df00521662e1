//! The guest's RAM ranges.

use std::ops::Range;

/// RAM as guest-physical ranges, in ascending order.
pub(crate) type Ram = [Range<u64>];
