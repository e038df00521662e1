//! Control frames queued for the guest: resets, ICMP messages and the gateway's own replies.

use std::collections::VecDeque;

/// Maximum number of queued frames. Further ones are dropped, as on any busy network.
const MAX_FRAMES: usize = 64;
/// Maximum number of queued bytes: an echo reply may have 64 KiB.
const MAX_BYTES: usize = 256 << 10;

/// A bounded queue of Ethernet frames.
#[derive(Debug, Default)]
pub(crate) struct ControlQueue {
    frames: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl ControlQueue {
    /// Queues a frame, or drops it if the queue is full.
    pub(crate) fn push(&mut self, frame: &[u8]) {
        if self.frames.len() < MAX_FRAMES && self.bytes + frame.len() <= MAX_BYTES {
            self.bytes += frame.len();
            self.frames.push_back(frame.into());
        }
    }

    /// Writes the oldest frame to `into` and returns its length. Frames that don't fit are dropped.
    pub(crate) fn pop(&mut self, into: &mut [u8]) -> Option<usize> {
        while let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.len();
            if let Some(room) = into.get_mut(..frame.len()) {
                room.copy_from_slice(&frame);
                return Some(frame.len());
            }
        }
        None
    }

    pub(crate) fn is_full(&self) -> bool {
        self.frames.len() >= MAX_FRAMES || self.bytes >= MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_queue_full_drops_newest() {
        let mut queue = ControlQueue::default();
        for number in 0..=MAX_FRAMES as u8 {
            queue.push(&[number]);
        }
        let mut into = [0; 1];
        let mut seen = Vec::new();
        while queue.pop(&mut into).is_some() {
            seen.push(into[0]);
        }
        assert_eq!(seen, (0..MAX_FRAMES as u8).collect::<Vec<_>>());
    }

    #[test]
    fn control_queue_of_long_frames_is_bounded_by_bytes() {
        let mut queue = ControlQueue::default();
        for _ in 0..MAX_FRAMES {
            queue.push(&[0; 65_000]);
        }
        // Four times 65,000 bytes is less than 256 KiB, five times is more.
        assert_eq!(queue.frames.len(), 4);
    }

    #[test]
    fn control_queue_frame_longer_than_room_is_dropped() {
        let mut queue = ControlQueue::default();
        queue.push(&[1; 100]);
        queue.push(&[2; 10]);
        let mut into = [0; 50];
        assert_eq!(queue.pop(&mut into), Some(10));
        assert_eq!(into[0], 2);
    }
}
