//! The rings of a queue with the driver's state.

use std::collections::HashMap;

use super::arena::Arena;

/// Length of a descriptor in bytes.
pub(super) const DESCRIPTOR_LEN: u64 = 16;

/// The rings of a queue with the driver's state.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    pub(super) size: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    pub(super) free: Vec<u16>,
    pub(super) chains: HashMap<u16, InFlight>,
    pub(super) next_available: u16,
    pub(super) next_used: u16,
    /// The available index at the last notification.
    pub(super) rung: u16,
    pub(super) no_interrupts: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct InFlight {
    pub(super) descriptors: Vec<u16>,
    pub(super) writable: Vec<(u64, u32)>,
    /// Number of buffers allocated in the arena.
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
