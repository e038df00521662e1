//! Ranges of guest memory for host I/O.

use vmm_memory::GuestRam;

/// A contiguous range of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRange {
    /// Guest-physical address of the first byte.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A sequence of guest memory ranges, such as the buffers of a descriptor chain.
pub trait GuestBytes {
    /// The RAM that contains the ranges.
    fn ram(&self) -> &GuestRam;

    /// The ranges, in order.
    fn ranges(&self) -> impl Iterator<Item = GuestRange>;
}

/// A list of ranges of guest RAM.
#[derive(Clone, Copy, Debug)]
pub struct GuestRanges<'a> {
    ram: &'a GuestRam,
    ranges: &'a [GuestRange],
}

impl<'a> GuestRanges<'a> {
    /// The list of `ranges` of `ram`.
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
