//! The bytes that a guest wrote and the host hasn't taken yet.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

use vmm_bus::Outcome;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Bytes at which the guest is held: what Linux gives a pipe.
const HOLD_LEN: usize = 64 << 10;
/// Bytes at which it may go on. Half, so that it doesn't stop and start for each byte.
const WAKE_LEN: usize = HOLD_LEN / 2;
/// The most vCPUs of a machine (`cpus.count` of a config).
const MAX_VCPUS: usize = 4096;
/// What one exit of a string instruction carries at most: the page that KVM shares with us.
const EXIT_LEN: usize = 4096;
/// Bytes that are ever kept. A held vCPU writes nothing until it is released, but each finishes the exit that it is in: at
/// one byte below the hold all of them may be in a string instruction. 16 MiB, taken from the host only when they are.
const CAPACITY: usize = HOLD_LEN + MAX_VCPUS * EXIT_LEN;

/// What happens to a guest that writes faster than the host takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It is held until there is room; nothing is lost. For a host side that reads, however slowly.
    Hold,
    /// It goes on, and the oldest 64 KiB are forgotten piece by piece. For a host side where nobody reads.
    DropOldest,
}

/// What [`Output::take`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes taken.
    pub len: usize,
    /// The guest was held for want of room, and there is room now: wake its vCPUs.
    pub wake: bool,
}

/// A bounded queue from the vCPU threads to the host's side.
#[derive(Debug)]
pub struct Output {
    queue: Mutex<Queue>,
    ready: EventFd,
}

#[derive(Debug)]
struct Queue {
    bytes: VecDeque<u8>,
    overflow: Overflow,
    held: bool,
    lost: u64,
}

impl Queue {
    /// So many bytes were taken out.
    fn taken(&mut self, len: usize) -> Taken {
        let wake = self.held && self.bytes.len() <= WAKE_LEN;
        if wake {
            self.held = false;
        }
        Taken { len, wake }
    }
}

impl Output {
    /// An empty queue that holds the guest when it is full.
    ///
    /// # Errors
    /// The host is out of file descriptors or of memory.
    pub fn new() -> io::Result<Self> {
        let queue = Queue { bytes: VecDeque::new(), overflow: Overflow::Hold, held: false, lost: 0 };
        Ok(Self { queue: Mutex::new(queue), ready: EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC)? })
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic while it is held")
    }

    /// Takes bytes from the guest, or about it.
    pub fn push(&self, bytes: &[u8]) {
        let mut queue = self.queue();
        let capacity = match queue.overflow {
            Overflow::Hold => CAPACITY,
            Overflow::DropOldest => HOLD_LEN,
        };
        let first = queue.bytes.is_empty();
        for &byte in bytes {
            if queue.bytes.len() >= capacity {
                queue.bytes.pop_front();
                queue.lost += 1;
            }
            queue.bytes.push_back(byte);
        }
        drop(queue);
        if first && !bytes.is_empty() {
            // Can't be full: the counter would have to reach 2^64 - 1.
            let _ = self.ready.write(1);
        }
    }

    /// Takes all of `line`, if the queue has no more than `limit` bytes then; otherwise nothing.
    #[must_use]
    pub fn push_within(&self, limit: usize, line: &[u8]) -> bool {
        let mut queue = self.queue();
        if queue.bytes.len() + line.len() > limit {
            return false;
        }
        let first = queue.bytes.is_empty();
        queue.bytes.extend(line);
        drop(queue);
        if first && !line.is_empty() {
            // Can't be full: the counter would have to reach 2^64 - 1.
            let _ = self.ready.write(1);
        }
        true
    }

    /// Whether the guest may go on writing.
    pub fn outcome(&self) -> Outcome {
        let mut queue = self.queue();
        if queue.overflow == Overflow::Hold && queue.bytes.len() >= HOLD_LEN {
            queue.held = true;
            return Outcome::Hold;
        }
        Outcome::Done
    }

    /// Whether a vCPU that was held must stay so: the host hasn't taken enough since, or others have filled the queue again.
    pub fn is_holding(&self) -> bool {
        let mut queue = self.queue();
        queue.held |= queue.overflow == Overflow::Hold && queue.bytes.len() >= HOLD_LEN;
        queue.held
    }

    /// Readable when the queue has stopped being empty. Read it, then [`take`](Self::take) until nothing
    /// comes.
    pub fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// Copies the oldest bytes into `into`, and returns how many there are. They stay until they are
    /// [discarded](Self::discard): for a host side that doesn't know yet how many it can write.
    pub fn peek(&self, into: &mut [u8]) -> usize {
        let queue = self.queue();
        let len = into.len().min(queue.bytes.len());
        into.iter_mut().zip(queue.bytes.iter()).for_each(|(to, from)| *to = *from);
        len
    }

    /// Takes away the `len` oldest bytes, which were [seen](Self::peek).
    pub fn discard(&self, len: usize) -> Taken {
        let mut queue = self.queue();
        let len = len.min(queue.bytes.len());
        queue.bytes.drain(..len);
        queue.taken(len)
    }

    /// Moves the oldest bytes into `into`.
    pub fn take(&self, into: &mut [u8]) -> Taken {
        let mut queue = self.queue();
        let len = into.len().min(queue.bytes.len());
        for (to, from) in into.iter_mut().zip(queue.bytes.drain(..len)) {
            *to = from;
        }
        queue.taken(len)
    }

    /// Chooses what happens from now on. `true` means that a guest was held and isn't any more: wake its
    /// vCPUs.
    #[must_use]
    pub fn set_overflow(&self, overflow: Overflow) -> bool {
        let mut queue = self.queue();
        queue.overflow = overflow;
        let wake = queue.held && overflow == Overflow::DropOldest;
        if wake {
            queue.held = false;
            let excess = queue.bytes.len().saturating_sub(HOLD_LEN);
            queue.bytes.drain(..excess);
            queue.lost += excess as u64;
        }
        wake
    }

    /// Whether all bytes have been taken.
    pub fn is_empty(&self) -> bool {
        self.queue().bytes.is_empty()
    }

    /// Bytes that nobody will ever see.
    pub fn lost(&self) -> u64 {
        self.queue().lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(output: &Output, len: usize) {
        (0..len).for_each(|i| output.push(&[i as u8]));
    }

    #[test]
    fn output_signals_once_per_burst() {
        let output = Output::new().unwrap();
        fill(&output, 3);
        assert_eq!(output.ready().read().unwrap(), 1);
        assert_eq!(output.take(&mut [0; 8]), Taken { len: 3, wake: false });
        fill(&output, 1);
        assert_eq!(output.ready().read().unwrap(), 1);
    }

    #[test]
    fn output_full_holds_the_guest_and_half_empty_wakes_it() {
        let output = Output::new().unwrap();
        fill(&output, HOLD_LEN - 1);
        assert_eq!(output.outcome(), Outcome::Done);
        fill(&output, 1);
        assert_eq!(output.outcome(), Outcome::Hold);
        let mut bytes = vec![0; WAKE_LEN - 1];
        assert!(!output.take(&mut bytes).wake, "one byte too many is left");
        assert!(output.take(&mut bytes[..1]).wake);
        assert!(!output.take(&mut bytes[..1]).wake, "once is enough");
        assert_eq!(output.lost(), 0);
    }

    #[test]
    fn output_holds_until_half_of_it_was_taken_and_again_once_it_is_full() {
        let output = Output::new().unwrap();
        fill(&output, HOLD_LEN);
        assert_eq!(output.outcome(), Outcome::Hold);
        let mut bytes = vec![0; WAKE_LEN - 1];
        output.take(&mut bytes);
        assert!(output.is_holding(), "one byte too many is left");
        output.take(&mut bytes[..1]);
        assert!(!output.is_holding());
        // Another vCPU was faster.
        fill(&output, WAKE_LEN);
        assert!(output.is_holding());
        assert!(output.take(&mut vec![0; WAKE_LEN]).wake, "who was told to stay is woken");
    }

    #[test]
    fn output_has_room_for_a_page_of_each_of_4096_vcpus_that_it_holds() {
        let output = Output::new().unwrap();
        fill(&output, HOLD_LEN - 1);
        let page = [7; 4096];
        (0..4096).for_each(|_| output.push(&page));
        assert_eq!(output.lost(), 0);
    }

    #[test]
    fn output_of_a_guest_that_ignores_the_hold_is_bounded() {
        let output = Output::new().unwrap();
        fill(&output, CAPACITY + 5);
        assert_eq!(output.lost(), 5);
        assert_eq!(output.take(&mut vec![0; 2 * CAPACITY]).len, CAPACITY);
    }

    #[test]
    fn output_takes_a_line_whole_or_not_at_all() {
        let output = Output::new().unwrap();
        assert!(output.push_within(8, b"first\n"));
        assert!(!output.push_within(8, b"abc"));
        assert!(output.push_within(8, b"ab"));
        let mut bytes = [0; 16];
        assert_eq!(output.take(&mut bytes).len, 8);
        assert_eq!(&bytes[..8], b"first\nab");
    }

    #[test]
    fn output_seen_stays_until_it_is_discarded_and_wakes_a_held_guest_then() {
        let output = Output::new().unwrap();
        fill(&output, HOLD_LEN);
        assert_eq!(output.outcome(), Outcome::Hold);
        let mut bytes = [9; 3];
        assert_eq!(output.peek(&mut bytes), 3);
        assert_eq!(output.peek(&mut bytes), 3);
        assert_eq!(bytes, [0, 1, 2]);
        assert_eq!(output.discard(WAKE_LEN - 1), Taken { len: WAKE_LEN - 1, wake: false });
        assert_eq!(output.discard(1), Taken { len: 1, wake: true });
        assert_eq!(output.peek(&mut bytes), 3);
        assert_eq!(bytes, [0, 1, 2], "the length is a multiple of 256");
    }

    #[test]
    fn output_without_a_reader_keeps_the_newest() {
        let output = Output::new().unwrap();
        assert!(!output.set_overflow(Overflow::DropOldest));
        fill(&output, HOLD_LEN + 2);
        assert_eq!(output.outcome(), Outcome::Done);
        let mut first = [0];
        assert_eq!(output.take(&mut first).len, 1);
        assert_eq!((first, output.lost()), ([2], 2));
    }

    #[test]
    fn output_whose_reader_leaves_wakes_a_held_guest() {
        let output = Output::new().unwrap();
        fill(&output, HOLD_LEN + 7);
        assert_eq!(output.outcome(), Outcome::Hold);
        assert!(output.set_overflow(Overflow::DropOldest));
        assert_eq!(output.lost(), 7);
    }
}
