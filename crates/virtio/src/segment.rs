//! A piece of guest RAM.

/// A piece of guest RAM that a descriptor names. All of it is RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) gpa: u64,
    pub(crate) len: u32,
}
