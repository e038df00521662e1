//! The frame being delivered to the guest.

use vmm_virtio::{Buffers, Fault, Head, Session, Step};

use super::properties::NUM_BUFFERS;
use super::sizes::FRAME_LEN;

/// The frame being delivered to the guest, and its chains.
///
/// ```text
///  empty --read--> waiting --a chain takes it--------------------------> empty
///                     |                                                    ^
///                     +--a chain takes a part--> partial --the last part---+
/// ```
pub(super) struct Receiver {
    pub(super) buffer: Vec<u8>,
    /// Length of the frame with its header; 0 if there is none.
    pub(super) len: usize,
    /// Number of bytes copied to chains.
    pub(super) given: usize,
    /// The rate limiter has admitted it.
    pub(super) is_paid: bool,
    /// Chains that the device keeps, with their lengths. Those of complete frames come first.
    pub(super) kept: Vec<(Head, u32)>,
    /// Number of chains that belong to complete frames.
    pub(super) whole: usize,
    /// Addresses of the two bytes in the first chain's header that hold the number of chains.
    pub(super) count_at: [Option<u64>; 2],
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; FRAME_LEN],
            len: 0,
            given: 0,
            is_paid: false,
            kept: Vec::new(),
            whole: 0,
            count_at: [None; 2],
        }
    }

    /// Copies as much of the frame as fits into a chain.
    pub(super) fn give(
        &mut self,
        head: Head,
        room: &Buffers<'_>,
        store: &impl Fn(u64, u8) -> Result<(), Fault>,
    ) -> Result<Step, Fault> {
        let left = &self.buffer[self.given..self.len];
        let part = left.len().min(usize::try_from(room.len()).unwrap_or(usize::MAX));
        room.write(&left[..part])?;
        if self.given == 0 {
            let place = |at: usize| room.split_at(at as u64).and_then(|(_, rest)| rest.gpa());
            self.count_at = [place(NUM_BUFFERS), place(NUM_BUFFERS + 1)];
        }
        self.given += part;
        let is_last = self.given == self.len;
        if is_last {
            (self.len, self.given) = (0, 0);
            // Chains are used in order, so this one comes after those that are kept.
            if self.kept.is_empty() {
                return Ok(Step::Used(part as u32));
            }
        }
        self.kept.push((head, part as u32));
        if is_last {
            // The device keeps at most as many chains as the queue has descriptors, which fits.
            let count = (self.kept.len() - self.whole) as u16;
            self.whole = self.kept.len();
            for (gpa, byte) in self.count_at.into_iter().zip(count.to_le_bytes()) {
                gpa.map_or(Ok(()), |gpa| store(gpa, byte))?;
            }
        }
        Ok(Step::Kept)
    }

    /// Returns the chains of complete frames. A frame that exceeds the whole queue is dropped.
    pub(super) fn complete(&mut self, index: usize, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        let Some(queue) = session.queue(index) else { return Ok(()) };
        for (head, len) in self.kept.drain(..self.whole) {
            queue.complete(head, len)?;
        }
        self.whole = 0;
        if self.kept.len() >= usize::from(queue.size()) {
            for (head, _) in self.kept.drain(..) {
                queue.complete(head, 0)?;
            }
            (self.len, self.given) = (0, 0);
            counters.requests.add(1);
            counters.errors.add(1);
        }
        queue.announce()
    }

    /// Returns all chains. A frame that is partly in some of them will be copied to others.
    pub(super) fn give_up(&mut self, index: usize, session: &mut Session) {
        // If the driver has broken its rings, nothing can be returned.
        let _ = self.complete(index, session);
        if let Some(queue) = session.queue(index) {
            for (head, _) in self.kept.drain(..) {
                let _ = queue.complete(head, 0);
            }
            let _ = queue.announce();
        }
        self.kept.clear();
        (self.whole, self.given) = (0, 0);
    }
}
