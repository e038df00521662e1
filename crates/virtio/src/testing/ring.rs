//! The rings of a queue, and what its driver remembers of them.

use std::collections::HashMap;

use super::arena::Arena;

/// A descriptor's length in bytes.
pub(super) const DESCRIPTOR_LEN: u64 = 16;

/// A queue's rings, and what its driver remembers.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pub(super) size: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    pub(super) free: Vec<u16>,
    pub(super) chains: HashMap<u16, InFlight>,
    pub(super) next_available: u16,
    pub(super) next_used: u16,
    /// The available index when the device was rung last.
    pub(super) rung: u16,
    pub(super) no_interrupts: bool,
}

#[derive(Debug, Default)]
pub(super) struct InFlight {
    pub(super) descriptors: Vec<u16>,
    pub(super) writable: Vec<(u64, u32)>,
    /// Of the arena.
    pub(super) buffers: usize,
}

impl Ring {
    pub(super) fn new(arena: &mut Arena, size: u16) -> Self {
        let len = u64::from(size);
        Self {
            size,
            descriptors: arena.ring(DESCRIPTOR_LEN * len),
            available: arena.ring(6 + 2 * len),
            used: arena.ring(6 + 8 * len),
            free: (0..size).rev().collect(),
            ..Self::default()
        }
    }
}
