//! What lies where in a guest before it runs, and how a plan is printed.

use std::fmt;
use std::ops::Range;

use vmm_arch::e820;

/// One thing that [`BootPlan::load`](crate::BootPlan::load) or [`FlatPlan::load`](crate::FlatPlan::load) writes, or that a kernel
/// needs before it manages memory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// What it is.
    pub what: &'static str,
    /// The guest-physical addresses that it occupies.
    pub range: Range<u64>,
}

/// The memory map and the placements, a line each.
pub(crate) fn write_memory(
    f: &mut fmt::Formatter<'_>,
    e820: &[e820::Entry],
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

fn kind_name(kind: e820::Kind) -> &'static str {
    match kind {
        e820::Kind::Ram => "RAM",
        e820::Kind::Reserved => "reserved",
    }
}
