//! Guest memory for a driver's rings and buffers.

use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

/// RAM: two adjacent regions, the MMIO gap below 4 GiB, and a region above it.
pub(crate) const LOW: u64 = 32 << 20;
pub(crate) const LOW_END: u64 = 64 << 20;
pub(crate) const HIGH: u64 = 4 << 30;
pub(crate) const HIGH_END: u64 = HIGH + (1 << 20);

/// Start of the rings: a driver wouldn't use address 0.
const RINGS: u64 = 0x1000;
/// Start of the buffers. 64 queues of 1024 descriptors fit below.
const BUFFERS: u64 = 4 << 20;

/// An allocator that restarts when nothing is in use.
#[derive(Clone, Debug)]
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

    /// Frees everything.
    pub(crate) fn clear(&mut self) {
        (self.next_ring, self.next_buffer, self.in_use) = (RINGS, BUFFERS, 0);
    }

    /// Allocates `len` zero bytes for a ring, 16-byte aligned, until [`clear`](Self::clear).
    pub(crate) fn ring(&mut self, len: u64) -> u64 {
        let gpa = self.next_ring.next_multiple_of(16);
        self.next_ring = gpa + len;
        assert!(self.next_ring <= BUFFERS, "the rings don't fit below {BUFFERS:#x}");
        self.fill(gpa, len, 0);
        gpa
    }

    /// The contents of all rings, for [`put_rings`](Self::put_rings).
    pub(crate) fn rings(&self) -> Vec<u8> {
        self.read(RINGS, self.next_ring - RINGS)
    }

    /// Restores the contents of all rings.
    pub(crate) fn put_rings(&self, contents: &[u8]) {
        self.write(RINGS, contents);
    }

    /// Allocates `len` bytes for a buffer, 16-byte aligned, until [`release`](Self::release).
    pub(crate) fn buffer(&mut self, len: u64) -> u64 {
        let gpa = self.next_buffer.next_multiple_of(16);
        self.next_buffer = gpa + len;
        assert!(self.next_buffer <= LOW_END, "{len:#x} more bytes of buffers don't fit into memory");
        self.in_use += 1;
        gpa
    }

    /// Releases this many buffers.
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
