//! Input: from host to guest.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard};

use vmm_bus::EventFd;

/// Bytes of input that a port holds at most: a page, which is what Linux's driver provides as its buffer.
pub const INPUT_MAX: usize = 4096;

/// A bounded byte queue that accepts bytes only while the guest has buffers for them.
#[derive(Debug)]
pub(super) struct Input {
    queue: Mutex<Queue>,
    wanted: EventFd,
}

#[derive(Debug)]
struct Queue {
    bytes: VecDeque<u8>,
    is_wanted: bool,
    /// The host has more than was accepted.
    host_waits: bool,
}

impl Queue {
    fn room(&self) -> usize {
        if self.is_wanted { INPUT_MAX - self.bytes.len() } else { 0 }
    }
}

impl Input {
    pub(super) fn new() -> io::Result<Self> {
        let bytes = VecDeque::with_capacity(INPUT_MAX);
        let queue = Queue { bytes, is_wanted: false, host_waits: false };
        Ok(Self { queue: Mutex::new(queue), wanted: super::bell::bell()? })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic while it is held")
    }

    /// Readable when there is room again.
    pub(super) fn wanted(&self) -> &EventFd {
        &self.wanted
    }

    pub(super) fn room(&self) -> usize {
        let mut queue = self.queue();
        let room = queue.room();
        queue.host_waits |= room == 0;
        room
    }

    /// Returns the number of bytes accepted, and whether the queue was empty before.
    pub(super) fn send(&self, bytes: &[u8]) -> (usize, bool) {
        let mut queue = self.queue();
        let is_first = queue.bytes.is_empty();
        let len = bytes.len().min(queue.room());
        queue.bytes.extend(&bytes[..len]);
        queue.host_waits |= len < bytes.len();
        (len, is_first && len > 0)
    }

    /// Moves the oldest bytes into `into`.
    pub(super) fn take(&self, into: &mut [u8]) -> usize {
        let mut queue = self.queue();
        let len = into.len().min(queue.bytes.len());
        for (to, from) in into.iter_mut().zip(queue.bytes.drain(..len)) {
            *to = from;
        }
        len
    }

    /// A copy of the bytes.
    pub(super) fn copy(&self) -> Vec<u8> {
        self.queue().bytes.iter().copied().collect()
    }

    /// Adds bytes as far as they fit, whether or not they are wanted now.
    pub(super) fn put(&self, bytes: &[u8]) {
        let mut queue = self.queue();
        let len = bytes.len().min(INPUT_MAX - queue.bytes.len());
        queue.bytes.extend(&bytes[..len]);
    }

    /// Sets whether the guest has buffers, and wakes a waiting host. The device calls it when it has taken
    /// all bytes.
    pub(super) fn set_wanted(&self, is_wanted: bool) {
        let mut queue = self.queue();
        queue.is_wanted = is_wanted;
        let tells = queue.host_waits && queue.room() > 0;
        if tells {
            queue.host_waits = false;
        }
        drop(queue);
        if tells {
            // It can't block: the counter would have to reach 2^64 - 1.
            let _ = self.wanted.write(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_waits_until_it_is_wanted() {
        let input = Input::new().unwrap();
        assert_eq!((input.room(), input.send(b"a")), (0, (0, false)));
        input.set_wanted(true);
        assert_eq!(input.wanted().read().unwrap(), 1);
        assert_eq!((input.room(), input.send(b"a")), (INPUT_MAX, (1, true)));
    }

    #[test]
    fn input_full_asks_for_more_when_the_device_has_taken_it() {
        let input = Input::new().unwrap();
        input.set_wanted(true);
        assert_eq!(input.send(&[7; INPUT_MAX + 1]), (INPUT_MAX, true));
        assert!(input.wanted().read().is_err());
        assert_eq!(input.take(&mut [0; 2 * INPUT_MAX]), INPUT_MAX);
        input.set_wanted(true);
        assert_eq!(input.wanted().read().unwrap(), 1);
    }

    #[test]
    fn input_that_fits_is_not_asked_for_again() {
        let input = Input::new().unwrap();
        input.set_wanted(true);
        assert_eq!(input.send(b"abc"), (3, true));
        assert_eq!(input.take(&mut [0; 8]), 3);
        input.set_wanted(true);
        assert!(input.wanted().read().is_err());
    }

    #[test]
    fn input_of_a_guest_that_went_away_waits_for_the_next_one() {
        let input = Input::new().unwrap();
        input.set_wanted(true);
        assert_eq!(input.send(b"ab"), (2, true));
        input.set_wanted(false);
        assert_eq!(input.send(b"c"), (0, false));
        let mut bytes = [0; 8];
        assert_eq!(input.take(&mut bytes), 2);
        assert_eq!(&bytes[..2], b"ab");
    }
}
