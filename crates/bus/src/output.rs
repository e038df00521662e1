//! A bounded queue of the bytes that a guest has written and the host hasn't taken yet.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};

use crate::EventFd;

use crate::Outcome;

/// Bytes at which a producer is held: what Linux gives a pipe.
const HOLD_LEN: usize = 64 << 10;
/// Room at which it may go on, and the least part of a longer piece that is worth a grant. Half, so that it doesn't stop and start
/// for each byte.
const WAKE_LEN: usize = HOLD_LEN / 2;
/// The most vCPUs of a machine (`cpus.count` of a config).
const MAX_VCPUS: usize = 4096;
/// What one exit of a string instruction carries at most: the page that KVM shares with us.
const EXIT_LEN: usize = 4096;
/// Bytes that are ever kept. A held vCPU writes nothing until it is released, but each finishes the exit that it is in: at
/// one byte below the hold all of them may be in a string instruction. 16 MiB, taken from the host only when they are.
const CAPACITY: usize = HOLD_LEN + MAX_VCPUS * EXIT_LEN;

/// Bytes that [`Output::write_to`] writes at a time: a page, of which a terminal takes no more at once.
const PIECE_LEN: usize = 4096;

/// What happens to a guest that writes faster than the host takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It is held until there is room; nothing is lost. For a host side that reads, however slowly.
    Hold,
    /// It goes on, and the oldest bytes beyond the newest 64 KiB are dropped and counted. For a host side where nobody reads.
    DropOldest,
}

/// The result of [`Output::take`] and [`Output::discard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeOutcome {
    /// Bytes taken.
    pub len: usize,
    /// A producer waited for room, and there is room now: wake it.
    pub wake: bool,
}

/// A bounded queue of bytes from a device to the host's side, which is on another thread.
///
/// A producer that can't be kept from writing, as a port that a vCPU writes, calls [`push`](Self::push) and then asks for the
/// [`outcome`](Self::outcome), which holds the vCPU while the queue is full. One that can leave its bytes where they are, as a
/// virtqueue, asks for room first, by [`reserve`](Self::reserve). A queue has producers of one sort only. Either way a producer
/// that waits is woken when the host has taken half: [`TakeOutcome::wake`].
///
/// ```
/// use vmm_bus::{Outcome, Output};
///
/// let output = Output::new()?;
/// output.push(b"booting\n");
/// assert_eq!(output.outcome(), Outcome::Done);
/// output.ready().read()?;
/// let mut bytes = [0; 16];
/// assert_eq!(output.take(&mut bytes).len, 8);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Output {
    queue: Mutex<Queue>,
    ready: EventFd,
}

#[derive(Debug)]
struct Queue {
    bytes: VecDeque<u8>,
    overflow: Overflow,
    /// Room promised to the producer.
    reserved: usize,
    /// Room that the producer waits for; 0 if it doesn't wait.
    awaited: usize,
    has_backlog: bool,
    lost: u64,
}

impl Queue {
    fn room(&self) -> usize {
        HOLD_LEN.saturating_sub(self.bytes.len() + self.reserved)
    }

    /// Whether producers are held from now on, or already.
    fn holds(&mut self) -> bool {
        if self.overflow == Overflow::Hold && self.bytes.len() >= HOLD_LEN {
            self.awaited = WAKE_LEN;
        }
        self.awaited > 0
    }

    /// Whether the producer waits for no more than this room. Then it does no longer.
    fn ends_wait(&mut self, room: usize) -> bool {
        let ends = self.awaited > 0 && self.awaited <= room;
        if ends {
            self.awaited = 0;
        }
        ends
    }

    /// So many bytes were taken out.
    fn taken(&mut self, len: usize) -> TakeOutcome {
        let room = self.room();
        TakeOutcome { len, wake: self.ends_wait(room) }
    }

    /// Copies the oldest bytes.
    fn copy_to(&self, into: &mut [u8]) -> usize {
        let len = into.len().min(self.bytes.len());
        let (first, second) = self.bytes.as_slices();
        let front = len.min(first.len());
        into[..front].copy_from_slice(&first[..front]);
        into[front..len].copy_from_slice(&second[..len - front]);
        len
    }

    fn drop_oldest(&mut self, len: usize) {
        self.bytes.drain(..len);
        self.lost += len as u64;
    }
}

impl Output {
    /// Bytes that a queue ever has.
    pub const CAPACITY: usize = CAPACITY;

    /// An empty queue that holds the guest when it is full.
    ///
    /// # Errors
    /// The host is out of file descriptors or of memory.
    pub fn new() -> io::Result<Self> {
        let queue = Queue {
            // All at once: no byte on its way needs an allocation, but those of a guest that is held already.
            bytes: VecDeque::with_capacity(HOLD_LEN),
            overflow: Overflow::Hold,
            reserved: 0,
            awaited: 0,
            has_backlog: false,
            lost: 0,
        };
        Ok(Self { queue: Mutex::new(queue), ready: EventFd::new()? })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic while it is held")
    }

    fn signal(&self) {
        // Can't be full: the counter would have to reach 2^64 - 1.
        let _ = self.ready.write(1);
    }

    /// Takes all of `bytes`, which the guest wrote or which are about it. Room that was reserved is used up first.
    pub fn push(&self, bytes: &[u8]) {
        let mut queue = self.queue();
        let capacity = match queue.overflow {
            Overflow::Hold => CAPACITY,
            Overflow::DropOldest => HOLD_LEN,
        };
        queue.reserved = queue.reserved.saturating_sub(bytes.len());
        let is_first = queue.bytes.is_empty();
        let newest = &bytes[bytes.len().saturating_sub(capacity)..];
        let excess = (queue.bytes.len() + newest.len()).saturating_sub(capacity);
        queue.drop_oldest(excess);
        queue.bytes.extend(newest);
        queue.lost += (bytes.len() - newest.len()) as u64;
        drop(queue);
        if is_first && !bytes.is_empty() {
            self.signal();
        }
    }

    /// Takes all of `line`, if the queue has no more than `limit` bytes then; otherwise nothing.
    #[must_use]
    pub fn push_within(&self, limit: usize, line: &[u8]) -> bool {
        let mut queue = self.queue();
        if queue.bytes.len() + line.len() > limit {
            return false;
        }
        let is_first = queue.bytes.is_empty();
        queue.bytes.extend(line);
        drop(queue);
        if is_first && !line.is_empty() {
            self.signal();
        }
        true
    }

    /// Takes as much of `text` as there is room for, beside what is reserved.
    pub fn push_what_fits(&self, text: &[u8]) {
        let mut queue = self.queue();
        let is_first = queue.bytes.is_empty();
        let len = text.len().min(queue.room());
        queue.bytes.extend(&text[..len]);
        drop(queue);
        if is_first && len > 0 {
            self.signal();
        }
    }

    /// Whether the guest may go on writing after a [`push`](Self::push).
    pub fn outcome(&self) -> Outcome {
        let mut queue = self.queue();
        let is_full = queue.overflow == Overflow::Hold && queue.bytes.len() >= HOLD_LEN;
        if is_full && queue.holds() { Outcome::Hold } else { Outcome::Done }
    }

    /// Whether a vCPU that was held must stay so: the host hasn't taken enough since, or others have filled the queue again.
    pub fn is_holding(&self) -> bool {
        self.queue().holds()
    }

    /// Reserves room for the first of `len` bytes, which [`push`](Self::push) will take: all of them if they fit at once, else at
    /// least 32 KiB of more than 64 KiB, else 0. After 0 the producer waits to be [woken](TakeOutcome::wake). While nobody reads,
    /// there is always room for 64 KiB.
    pub fn reserve(&self, len: u64) -> usize {
        let mut queue = self.queue();
        queue.reserved = 0;
        let fits = usize::try_from(len).unwrap_or(usize::MAX);
        let room = if queue.overflow == Overflow::Hold { queue.room() } else { HOLD_LEN };
        let granted = match fits <= room {
            true => fits,
            false if fits > HOLD_LEN && room >= WAKE_LEN => room,
            false => 0,
        };
        queue.reserved = granted;
        queue.awaited = match granted == 0 && fits > 0 {
            true if fits > HOLD_LEN => WAKE_LEN,
            true => fits.max(WAKE_LEN),
            false => 0,
        };
        granted
    }

    /// Whether the producer has output that it hasn't pushed yet, so that the queue isn't [drained](Self::is_drained) without it.
    pub fn set_backlog(&self, has_backlog: bool) {
        let mut queue = self.queue();
        let ended = queue.has_backlog && !has_backlog;
        queue.has_backlog = has_backlog;
        let has_news = ended && queue.bytes.is_empty();
        drop(queue);
        if has_news {
            self.signal();
        }
    }

    /// A non-blocking eventfd, readable when the queue has stopped being empty, or a backlog has gone without a byte. Read it, then [`take`](Self::take)
    /// until nothing comes.
    pub fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// Copies the oldest bytes into `into`, and returns how many there are. They stay until they are
    /// [discarded](Self::discard): for a host side that doesn't know yet how many it can write.
    pub fn peek(&self, into: &mut [u8]) -> usize {
        self.queue().copy_to(into)
    }

    /// Takes away the `len` oldest bytes, which were [seen](Self::peek).
    pub fn discard(&self, len: usize) -> TakeOutcome {
        let mut queue = self.queue();
        let len = len.min(queue.bytes.len());
        queue.bytes.drain(..len);
        queue.taken(len)
    }

    /// Moves the oldest bytes into `into`.
    pub fn take(&self, into: &mut [u8]) -> TakeOutcome {
        let mut queue = self.queue();
        let len = queue.copy_to(into);
        queue.bytes.drain(..len);
        queue.taken(len)
    }

    /// Writes to `out`, which may block, until the queue is empty, and flushes it. Calls `wake` when a producer that waited
    /// needn't any more. For a host side with a thread of its own: [wait](EventFd::wait) for [`ready`](Self::ready), then call
    /// this.
    ///
    /// # Errors
    /// Those of `out`. What it didn't take may be lost.
    pub fn write_to(&self, out: &mut impl Write, wake: impl Fn()) -> io::Result<()> {
        let mut bytes = [0; PIECE_LEN];
        loop {
            let taken = self.take(&mut bytes);
            if taken.wake {
                wake();
            }
            if taken.len == 0 {
                return out.flush();
            }
            out.write_all(&bytes[..taken.len])?;
        }
    }

    /// Chooses what happens from now on. `true` means that a producer waited and needn't any more: wake it.
    #[must_use]
    pub fn set_overflow(&self, overflow: Overflow) -> bool {
        let mut queue = self.queue();
        queue.overflow = overflow;
        if overflow == Overflow::Hold {
            return false;
        }
        let excess = queue.bytes.len().saturating_sub(HOLD_LEN);
        queue.drop_oldest(excess);
        queue.ends_wait(HOLD_LEN)
    }

    /// Whether all bytes have been taken, and there is no backlog.
    pub fn is_drained(&self) -> bool {
        let queue = self.queue();
        queue.bytes.is_empty() && !queue.has_backlog
    }

    /// Bytes that haven't been taken.
    pub fn queued(&self) -> usize {
        self.queue().bytes.len()
    }

    /// Bytes that nobody will ever see.
    pub fn lost(&self) -> u64 {
        self.queue().lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = HOLD_LEN as u64;

    fn fill(output: &Output, len: usize) {
        (0..len).for_each(|i| output.push(&[i as u8]));
    }

    #[test]
    fn output_written_is_all_there_and_a_held_guest_is_woken_once() {
        let output = Output::new().unwrap();
        fill(&output, HOLD_LEN);
        assert_eq!(output.outcome(), Outcome::Hold);
        let (mut written, wakes) = (Vec::new(), std::cell::Cell::new(0));
        output.write_to(&mut written, || wakes.set(wakes.get() + 1)).unwrap();
        let expected: Vec<u8> = (0..HOLD_LEN).map(|i| i as u8).collect();
        assert!(written == expected, "{} bytes", written.len());
        assert_eq!(wakes.get(), 1);
        assert!(output.is_drained());
    }

    /// As a console's port has it until somebody connects.
    fn without_reader() -> Output {
        let output = Output::new().unwrap();
        assert!(!output.set_overflow(Overflow::DropOldest));
        output
    }

    /// As a device on a virtqueue does it.
    fn give(output: &Output, bytes: &[u8]) {
        assert_eq!(output.reserve(bytes.len() as u64), bytes.len());
        output.push(bytes);
    }

    #[test]
    fn output_signals_once_per_burst() {
        let output = Output::new().unwrap();
        fill(&output, 3);
        assert_eq!(output.ready().read().unwrap(), 1);
        assert_eq!(output.take(&mut [0; 8]), TakeOutcome { len: 3, wake: false });
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
        assert_eq!(output.discard(WAKE_LEN - 1), TakeOutcome { len: WAKE_LEN - 1, wake: false });
        assert_eq!(output.discard(1), TakeOutcome { len: 1, wake: true });
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

    #[test]
    fn output_reserved_signals_once_per_burst() {
        let output = Output::new().unwrap();
        give(&output, b"a");
        give(&output, b"b");
        assert_eq!(output.ready().read().unwrap(), 1);
        assert_eq!(output.take(&mut [0; 8]), TakeOutcome { len: 2, wake: false });
        give(&output, b"c");
        assert_eq!(output.ready().read().unwrap(), 1);
    }

    #[test]
    fn output_takes_a_chain_whole_or_not_at_all() {
        let output = Output::new().unwrap();
        give(&output, &[1; HOLD_LEN - 10]);
        assert_eq!(output.reserve(11), 0);
        assert_eq!(output.reserve(10), 10);
    }

    #[test]
    fn output_full_wakes_the_device_when_half_is_free() {
        let output = Output::new().unwrap();
        give(&output, &[1; HOLD_LEN]);
        assert_eq!(output.reserve(1), 0);
        assert_eq!(output.take(&mut [0; WAKE_LEN - 1]), TakeOutcome { len: WAKE_LEN - 1, wake: false });
        assert_eq!(output.take(&mut [0; 1]), TakeOutcome { len: 1, wake: true });
        assert_eq!(output.take(&mut [0; 1]), TakeOutcome { len: 1, wake: false }, "once is enough");
    }

    #[test]
    fn output_for_more_than_half_wakes_the_device_when_that_is_free() {
        let output = Output::new().unwrap();
        give(&output, &[1; HOLD_LEN]);
        assert_eq!(output.reserve(ALL), 0);
        assert_eq!(output.take(&mut [0; HOLD_LEN - 1]), TakeOutcome { len: HOLD_LEN - 1, wake: false });
        assert_eq!(output.take(&mut [0; HOLD_LEN]), TakeOutcome { len: 1, wake: true });
    }

    #[test]
    fn output_takes_a_chain_longer_than_itself_in_parts() {
        let output = Output::new().unwrap();
        assert_eq!(output.reserve(u64::MAX), HOLD_LEN);
        output.push(&[1; HOLD_LEN]);
        assert_eq!(output.reserve(u64::MAX), 0);
        assert_eq!(output.take(&mut [0; WAKE_LEN]), TakeOutcome { len: WAKE_LEN, wake: true });
        assert_eq!(output.reserve(u64::MAX), WAKE_LEN);
        assert_eq!(output.lost(), 0);
    }

    #[test]
    fn output_without_a_reader_has_room_and_keeps_the_newest() {
        let output = without_reader();
        give(&output, &[1; HOLD_LEN]);
        give(&output, &[2; 3]);
        assert_eq!(output.lost(), 3);
        let mut bytes = vec![0; HOLD_LEN + 1];
        assert_eq!(output.take(&mut bytes), TakeOutcome { len: HOLD_LEN, wake: false });
        assert_eq!(bytes[HOLD_LEN - 4..HOLD_LEN], [1, 2, 2, 2]);
    }

    #[test]
    fn output_never_grows_whatever_is_said() {
        let output = Output::new().unwrap();
        let before = output.queue().bytes.capacity();
        assert_eq!(output.reserve(ALL - 2), HOLD_LEN - 2);
        output.push_what_fits(b"four");
        output.push(&[1; HOLD_LEN - 2]);
        assert_eq!(output.queue().bytes.capacity(), before);
        assert_eq!(output.take(&mut [0; HOLD_LEN + 1]), TakeOutcome { len: HOLD_LEN, wake: false });
        assert_eq!(output.lost(), 0);
    }

    #[test]
    fn output_with_a_backlog_is_not_drained_and_says_when_it_is_gone() {
        let output = Output::new().unwrap();
        output.set_backlog(true);
        assert!(!output.is_drained());
        output.set_backlog(false);
        assert!(output.is_drained() && output.ready().read().is_ok());
    }
}
