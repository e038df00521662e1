//! Guest memory as the host's calls fill and empty it.

use vmm_memory::GuestRam;

/// Consecutive bytes of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRange {
    /// The guest-physical address of the first.
    pub gpa: u64,
    /// How many.
    pub len: u64,
}

/// Bytes of guest RAM in their order, such as a virtio driver's buffers.
pub trait GuestBytes {
    /// The memory that they lie in.
    fn ram(&self) -> &GuestRam;

    /// Where they lie.
    fn ranges(&self) -> impl Iterator<Item = GuestRange>;
}

/// Some ranges of a guest's RAM.
#[derive(Clone, Copy, Debug)]
pub struct GuestRanges<'a> {
    ram: &'a GuestRam,
    ranges: &'a [GuestRange],
}

impl<'a> GuestRanges<'a> {
    /// These `ranges` of `ram`.
    pub fn new(ram: &'a GuestRam, ranges: &'a [GuestRange]) -> Self {
        Self { ram, ranges }
    }
}

impl GuestBytes for GuestRanges<'_> {
    fn ram(&self) -> &GuestRam {
        self.ram
    }

    fn ranges(&self) -> impl Iterator<Item = GuestRange> {
        self.ranges.iter().copied()
    }
}
