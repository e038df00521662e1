//! Segments of guest RAM.

/// Guest RAM that a descriptor points to. All of it is RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) gpa: u64,
    pub(crate) len: u32,
}
