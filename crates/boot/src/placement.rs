//! Placements of data in guest memory, and printing them.

use std::fmt;
use std::ops::Range;

use vmm_arch::e820::{E820Entry, E820Kind};

/// A range that [`BootPlan::load`](crate::BootPlan::load) or [`FlatPlan::load`](crate::FlatPlan::load)
/// writes, or that a kernel needs before it manages memory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Name of its contents.
    pub what: &'static str,
    /// The guest-physical addresses it occupies.
    pub range: Range<u64>,
}

/// Prints the memory map and the placements, one per line.
pub(crate) fn write_memory(
    f: &mut fmt::Formatter<'_>,
    e820: &[E820Entry],
    placements: &[Placement],
) -> fmt::Result {
    writeln!(f, "memory map:")?;
    for entry in e820 {
        let end = entry.addr + entry.len;
        writeln!(f, "  {:#011x}..{end:#011x} {}", entry.addr, kind_name(entry.kind))?;
    }
    writeln!(f, "placements:")?;
    for Placement { what, range } in placements {
        writeln!(f, "  {:#011x}..{:#011x} {what}", range.start, range.end)?;
    }
    Ok(())
}

fn kind_name(kind: E820Kind) -> &'static str {
    match kind {
        E820Kind::Ram => "RAM",
        E820Kind::Reserved => "reserved",
    }
}
