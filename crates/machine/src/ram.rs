//! Where RAM is.

use std::ops::Range;

/// RAM, as guest-physical ranges.
pub(crate) type Ram = [Range<u64>];
