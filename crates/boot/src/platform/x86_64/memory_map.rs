//! Printing the memory map and the placements of a plan.

use std::fmt;

use vmm_arch::e820::{E820Entry, E820Kind};

use crate::Placement;

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
