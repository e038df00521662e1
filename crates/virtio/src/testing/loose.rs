//! A chain without a queue.

use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

use crate::Chain;
use crate::segment::Segment;

/// Memory of a [`LooseChain`]. Its buffers are laid out in order with one-byte gaps.
const RAM_LEN: u64 = 1 << 20;

/// A chain without a driver, as input for a device's parser: for fuzzing, where a queue and a thread would be
/// too slow.
#[derive(Debug)]
pub struct LooseChain {
    ram: GuestRam,
    segments: Vec<Segment>,
    readable: usize,
}

impl LooseChain {
    /// A chain of the given readable bytes and writable lengths. Whatever exceeds one mebibyte is left out.
    ///
    /// # Panics
    /// The host is out of memory.
    pub fn new(readable: &[&[u8]], writable: &[u32]) -> Self {
        let ram = GuestRam::new(&[0..RAM_LEN]).expect("a mebibyte of memory");
        let mut chain = Self { ram, segments: Vec::new(), readable: 0 };
        for bytes in readable {
            if let Some(gpa) = chain.push(bytes.len() as u64) {
                chain.ram.memory().write_slice(bytes, GuestAddress(gpa)).expect("it lies in memory");
            }
        }
        chain.readable = chain.segments.len();
        for len in writable {
            chain.push((*len).into());
        }
        chain
    }

    /// The chain.
    pub fn chain(&self) -> Chain<'_> {
        Chain::of_segments(&self.ram, self.segments.split_at(self.readable))
    }

    /// Allocates a buffer.
    fn push(&mut self, len: u64) -> Option<u64> {
        let gpa = self.segments.last().map_or(0, |last| last.gpa + u64::from(last.len) + 1);
        let fits = len > 0 && gpa + len <= RAM_LEN;
        fits.then(|| {
            self.segments.push(Segment { gpa, len: len as u32 });
            gpa
        })
    }
}
