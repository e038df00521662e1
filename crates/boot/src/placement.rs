//! Placements of data in guest memory.

use std::ops::Range;

/// A range that [`BootPlan::load`](crate::BootPlan::load) or [`FlatPlan::load`](crate::FlatPlan::load)
/// writes, or that a kernel needs before it manages memory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Name of its contents.
    pub what: &'static str,
    /// The guest-physical addresses it occupies.
    pub range: Range<u64>,
}
