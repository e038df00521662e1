//! Guest memory for what a driver hands over.

use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

/// Where RAM is: two regions that touch, the gap that MMIO has below 4 GiB, and a region above it.
pub(crate) const LOW: u64 = 32 << 20;
pub(crate) const LOW_END: u64 = 64 << 20;
pub(crate) const HIGH: u64 = 4 << 30;
pub(crate) const HIGH_END: u64 = HIGH + (1 << 20);

/// Rings come first, from here on: 0 isn't an address that a driver would use.
const RINGS: u64 = 0x1000;
/// Where buffers start. 64 queues of 1024 descriptors lie below.
const BUFFERS: u64 = 4 << 20;

/// An allocator that starts anew when nothing is left in use.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) ram: GuestRam,
    next_ring: u64,
    next_buffer: u64,
    in_use: usize,
}

impl Arena {
    pub(crate) fn new() -> Self {
        let ram = GuestRam::new(&[0..LOW, LOW..LOW_END, HIGH..HIGH_END]).expect("65 MiB, not touched yet");
        Self { ram, next_ring: RINGS, next_buffer: BUFFERS, in_use: 0 }
    }

    /// Everything is free again.
    pub(crate) fn clear(&mut self) {
        (self.next_ring, self.next_buffer, self.in_use) = (RINGS, BUFFERS, 0);
    }

    /// `len` zeros for a ring, at a multiple of 16, until [`clear`](Self::clear).
    pub(crate) fn ring(&mut self, len: u64) -> u64 {
        let gpa = self.next_ring.next_multiple_of(16);
        self.next_ring = gpa + len;
        assert!(self.next_ring <= BUFFERS, "the rings don't fit below {BUFFERS:#x}");
        self.fill(gpa, len, 0);
        gpa
    }

    /// `len` bytes for a buffer, at a multiple of 16, until [`release`](Self::release).
    pub(crate) fn buffer(&mut self, len: u64) -> u64 {
        let gpa = self.next_buffer.next_multiple_of(16);
        self.next_buffer = gpa + len;
        assert!(self.next_buffer <= LOW_END, "{len:#x} more bytes of buffers don't fit into memory");
        self.in_use += 1;
        gpa
    }

    /// So many buffers are no longer in use.
    pub(crate) fn release(&mut self, count: usize) {
        self.in_use -= count;
        if self.in_use == 0 {
            self.next_buffer = BUFFERS;
        }
    }

    pub(crate) fn fill(&self, gpa: u64, len: u64, byte: u8) {
        self.write(gpa, &vec![byte; len as usize]);
    }

    pub(crate) fn write(&self, gpa: u64, bytes: &[u8]) {
        self.ram.memory().write_slice(bytes, GuestAddress(gpa)).expect("a test writes to memory");
    }

    pub(crate) fn read(&self, gpa: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.ram.memory().read_slice(&mut bytes, GuestAddress(gpa)).expect("a test reads memory");
        bytes
    }
}
