//! The way from the guest to the host.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard};

use vmm_sys_util::eventfd::EventFd;

/// Bytes that are ever kept: what Linux gives a pipe.
const CAPACITY: usize = 64 << 10;
/// Room at which a device that waits is told, and of which a part of a chain is made that never fits: half, so that it
/// doesn't stop and start for each byte.
const WAKE_LEN: usize = CAPACITY / 2;

/// A bounded queue of bytes. The device asks for room first; the host takes.
#[derive(Debug)]
pub(super) struct Output {
    queue: Mutex<Queue>,
    ready: EventFd,
}

#[derive(Debug)]
struct Queue {
    bytes: VecDeque<u8>,
    /// Room promised to the device.
    reserved: usize,
    /// Room for which the device waits; 0 if it doesn't.
    awaited: usize,
    /// Somebody takes them.
    has_reader: bool,
    has_backlog: bool,
    lost: u64,
}

impl Queue {
    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.bytes.len() + self.reserved)
    }

    /// Whether the device waits for no more than this room. Then it does no longer.
    fn ends_wait(&mut self, room: usize) -> bool {
        let ends = self.awaited > 0 && self.awaited <= room;
        if ends {
            self.awaited = 0;
        }
        ends
    }
}

impl Output {
    pub(super) fn new() -> io::Result<Self> {
        let queue = Queue {
            // All at once: no byte on its way needs an allocation.
            bytes: VecDeque::with_capacity(CAPACITY),
            reserved: 0,
            awaited: 0,
            has_reader: false,
            has_backlog: false,
            lost: 0,
        };
        Ok(Self { queue: Mutex::new(queue), ready: super::bell::bell()? })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic while it is held")
    }

    pub(super) fn ready(&self) -> &EventFd {
        &self.ready
    }

    fn signal(&self) {
        // Can't be full: the counter would have to reach 2^64 - 1.
        let _ = self.ready.write(1);
    }

    /// Room for the first of `len` bytes; 0 to wait.
    pub(super) fn reserve(&self, len: u64) -> usize {
        let mut queue = self.queue();
        queue.reserved = 0;
        let fits = usize::try_from(len).unwrap_or(usize::MAX);
        let room = if queue.has_reader { queue.room() } else { CAPACITY };
        let granted = match fits <= room {
            true => fits,
            false if fits > CAPACITY && room >= WAKE_LEN => room,
            false => 0,
        };
        queue.reserved = granted;
        queue.awaited = match granted == 0 && fits > 0 {
            true if fits > CAPACITY => WAKE_LEN,
            true => fits.max(WAKE_LEN),
            false => 0,
        };
        granted
    }

    /// Takes bytes for which room was reserved. The oldest go if nobody reads.
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut queue = self.queue();
        queue.reserved = queue.reserved.saturating_sub(bytes.len());
        let is_first = queue.bytes.is_empty();
        let newest = &bytes[bytes.len().saturating_sub(CAPACITY)..];
        let excess = (queue.bytes.len() + newest.len()).saturating_sub(CAPACITY);
        queue.bytes.drain(..excess);
        queue.bytes.extend(newest);
        queue.lost += (excess + bytes.len() - newest.len()) as u64;
        drop(queue);
        if is_first && !bytes.is_empty() {
            self.signal();
        }
    }

    /// The monitor's own words, as far as there is room beside what the guest was promised.
    pub(super) fn say(&self, text: &[u8]) {
        let mut queue = self.queue();
        let is_first = queue.bytes.is_empty();
        let len = text.len().min(queue.room());
        queue.bytes.extend(&text[..len]);
        drop(queue);
        if is_first && len > 0 {
            self.signal();
        }
    }

    /// Moves the oldest bytes, and says whether the device that waits has room now.
    pub(super) fn take(&self, into: &mut [u8]) -> (usize, bool) {
        let mut queue = self.queue();
        let len = into.len().min(queue.bytes.len());
        let (first, second) = queue.bytes.as_slices();
        let front = len.min(first.len());
        into[..front].copy_from_slice(&first[..front]);
        into[front..len].copy_from_slice(&second[..len - front]);
        queue.bytes.drain(..len);
        let room = queue.room();
        (len, queue.ends_wait(room))
    }

    pub(super) fn reader_came(&self) {
        self.queue().has_reader = true;
    }

    /// Whether the device waited.
    pub(super) fn reader_left(&self) -> bool {
        let mut queue = self.queue();
        queue.has_reader = false;
        queue.ends_wait(CAPACITY)
    }

    pub(super) fn set_backlog(&self, has_backlog: bool) {
        let mut queue = self.queue();
        let ended = queue.has_backlog && !has_backlog;
        queue.has_backlog = has_backlog;
        let has_news = ended && queue.bytes.is_empty();
        drop(queue);
        if has_news {
            self.signal();
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        let queue = self.queue();
        queue.bytes.is_empty() && !queue.has_backlog
    }

    pub(super) fn lost(&self) -> u64 {
        self.queue().lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = CAPACITY as u64;

    fn with_reader() -> Output {
        let output = Output::new().unwrap();
        output.reader_came();
        output
    }

    fn give(output: &Output, bytes: &[u8]) {
        assert_eq!(output.reserve(bytes.len() as u64), bytes.len());
        output.push(bytes);
    }

    #[test]
    fn output_signals_once_per_burst() {
        let output = with_reader();
        give(&output, b"a");
        give(&output, b"b");
        assert_eq!(output.ready().read().unwrap(), 1);
        assert_eq!(output.take(&mut [0; 8]), (2, false));
        give(&output, b"c");
        assert_eq!(output.ready().read().unwrap(), 1);
    }

    #[test]
    fn output_takes_a_chain_whole_or_not_at_all() {
        let output = with_reader();
        give(&output, &[1; CAPACITY - 10]);
        assert_eq!(output.reserve(11), 0);
        assert_eq!(output.reserve(10), 10);
    }

    #[test]
    fn output_full_tells_the_device_when_half_is_free() {
        let output = with_reader();
        give(&output, &[1; CAPACITY]);
        assert_eq!(output.reserve(1), 0);
        assert_eq!(output.take(&mut [0; WAKE_LEN - 1]), (WAKE_LEN - 1, false));
        assert_eq!(output.take(&mut [0; 1]), (1, true));
        assert_eq!(output.take(&mut [0; 1]), (1, false), "once is enough");
    }

    #[test]
    fn output_for_more_than_half_tells_the_device_when_that_is_free() {
        let output = with_reader();
        give(&output, &[1; CAPACITY]);
        assert_eq!(output.reserve(ALL), 0);
        assert_eq!(output.take(&mut [0; CAPACITY - 1]), (CAPACITY - 1, false));
        assert_eq!(output.take(&mut [0; CAPACITY]), (1, true));
    }

    #[test]
    fn output_takes_a_chain_longer_than_itself_in_parts() {
        let output = with_reader();
        assert_eq!(output.reserve(u64::MAX), CAPACITY);
        output.push(&[1; CAPACITY]);
        assert_eq!(output.reserve(u64::MAX), 0);
        assert_eq!(output.take(&mut [0; WAKE_LEN]), (WAKE_LEN, true));
        assert_eq!(output.reserve(u64::MAX), WAKE_LEN);
        assert_eq!(output.lost(), 0);
    }

    #[test]
    fn output_without_a_reader_keeps_the_newest() {
        let output = Output::new().unwrap();
        give(&output, &[1; CAPACITY]);
        give(&output, &[2; 3]);
        assert_eq!(output.lost(), 3);
        let mut bytes = vec![0; CAPACITY + 1];
        assert_eq!(output.take(&mut bytes), (CAPACITY, false));
        assert_eq!(bytes[CAPACITY - 4..CAPACITY], [1, 2, 2, 2]);
    }

    #[test]
    fn output_never_grows_whatever_is_said() {
        let output = with_reader();
        let before = output.queue().bytes.capacity();
        assert_eq!(output.reserve(ALL - 2), CAPACITY - 2);
        output.say(b"four");
        output.push(&[1; CAPACITY - 2]);
        assert_eq!(output.queue().bytes.capacity(), before);
        assert_eq!(output.take(&mut [0; CAPACITY + 1]), (CAPACITY, false));
        assert_eq!(output.lost(), 0);
    }

    #[test]
    fn output_with_a_backlog_is_not_drained_and_says_when_it_is_gone() {
        let output = with_reader();
        output.set_backlog(true);
        assert!(!output.is_drained());
        output.set_backlog(false);
        assert!(output.is_drained() && output.ready().read().is_ok());
    }
}
