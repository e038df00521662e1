//! Flow control (virtio 1.2 §5.10.6.3).

use super::packet::Header;

/// Credit in both directions of one connection. All counts are modulo 2^32, as in the specification.
#[derive(Debug)]
pub(super) struct Credit {
    /// Maximum number of bytes from the guest kept here.
    buf_alloc: u32,
    /// Bytes received from the guest.
    received: u32,
    /// Bytes of these that have left our memory, and the count that the guest knows.
    forwarded: u32,
    told: u32,
    /// Bytes sent to the guest, and those that it reports to have left its memory.
    sent: u32,
    peer_forwarded: u32,
    peer_buf_alloc: u32,
}

impl Credit {
    pub(super) fn new(buf_alloc: u32) -> Self {
        Self { buf_alloc, received: 0, forwarded: 0, told: 0, sent: 0, peer_forwarded: 0, peer_buf_alloc: 0 }
    }

    /// The credit given to the guest.
    pub(super) fn buf_alloc(&self) -> u32 {
        self.buf_alloc
    }

    /// Counts `len` bytes from the guest. False if they exceed its credit.
    #[must_use]
    pub(super) fn receive(&mut self, len: u32) -> bool {
        let kept = self.received.wrapping_sub(self.forwarded);
        let fits = self.buf_alloc.checked_sub(kept).is_some_and(|room| len <= room);
        if fits {
            self.received = self.received.wrapping_add(len);
        }
        fits
    }

    /// Counts `len` bytes from the guest that have left our memory.
    pub(super) fn forward(&mut self, len: u32) {
        self.forwarded = self.forwarded.wrapping_add(len);
    }

    /// Whether the guest underestimates its credit by a quarter of the total. A continuous sender then gets
    /// one update for many packets, and one that has used up its credit always gets one. The total is at most
    /// the guest's own buffer: Linux has no more than that in flight (virtio_transport_tx_buf_size), and
    /// waits without asking.
    pub(super) fn is_update_due(&self) -> bool {
        let all = self.buf_alloc.min(self.peer_buf_alloc);
        self.forwarded.wrapping_sub(self.told) >= (all / 4).max(1)
    }

    /// Fills in the credit fields of a packet to the guest.
    pub(super) fn stamp(&mut self, header: &mut Header) {
        self.told = self.forwarded;
        (header.buf_alloc, header.fwd_cnt) = (self.buf_alloc, self.forwarded);
    }

    /// Takes the credit fields of a packet from the guest.
    pub(super) fn learn(&mut self, header: &Header) {
        (self.peer_buf_alloc, self.peer_forwarded) = (header.buf_alloc, header.fwd_cnt);
    }

    /// Number of bytes that the guest has room for; 0 if its values are inconsistent.
    pub(super) fn peer_room(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.peer_forwarded);
        self.peer_buf_alloc.saturating_sub(in_flight)
    }

    /// Counts `len` bytes sent to the guest.
    pub(super) fn send(&mut self, len: u32) {
        self.sent = self.sent.wrapping_add(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten bytes before the counts wrap.
    const NEAR: u32 = u32::MAX - 9;

    fn near_the_end() -> Credit {
        Credit {
            received: NEAR,
            forwarded: NEAR,
            told: NEAR,
            sent: NEAR,
            peer_forwarded: NEAR,
            ..Credit::new(100)
        }
    }

    fn says(buf_alloc: u32, fwd_cnt: u32) -> Header {
        Header { buf_alloc, fwd_cnt, ..Header::default() }
    }

    #[test]
    fn guest_may_send_what_is_promised_and_no_more() {
        let mut credit = Credit::new(100);
        assert!(credit.receive(60));
        assert!(!credit.receive(41));
        assert!(credit.receive(40));
        assert!(!credit.receive(1));
        credit.forward(30);
        assert!(!credit.receive(31));
        assert!(credit.receive(30));
    }

    #[test]
    fn guest_counts_that_wrap_are_room_as_before() {
        let mut credit = near_the_end();
        assert!(credit.receive(100));
        credit.forward(100);
        assert!(!credit.receive(101));
        assert!(credit.receive(100));
        credit.forward(50);
        assert!(!credit.receive(51));
    }

    #[test]
    fn host_sends_what_the_guest_has_room_for_and_no_more() {
        let mut credit = Credit::new(100);
        assert_eq!(credit.peer_room(), 0);
        credit.learn(&says(50, 0));
        credit.send(50);
        assert_eq!(credit.peer_room(), 0);
        credit.learn(&says(50, 20));
        assert_eq!(credit.peer_room(), 20);
    }

    #[test]
    fn host_counts_that_wrap_are_room_as_before() {
        let mut credit = near_the_end();
        credit.learn(&says(50, NEAR));
        credit.send(30);
        assert_eq!(credit.peer_room(), 20);
        credit.learn(&says(50, NEAR.wrapping_add(30)));
        assert_eq!(credit.peer_room(), 50);
    }

    #[test]
    fn guest_that_shrinks_its_buffer_or_claims_too_much_gets_nothing() {
        let mut credit = Credit::new(100);
        credit.learn(&says(50, 0));
        credit.send(40);
        credit.learn(&says(30, 0));
        assert_eq!(credit.peer_room(), 0);
        // More than was sent.
        credit.learn(&says(50, 41));
        assert_eq!(credit.peer_room(), 0);
    }

    #[test]
    fn update_is_due_when_a_quarter_has_left_and_not_after_a_packet() {
        let mut credit = near_the_end();
        credit.learn(&says(100, NEAR));
        assert!(credit.receive(100));
        credit.forward(24);
        assert!(!credit.is_update_due());
        credit.forward(1);
        assert!(credit.is_update_due());
        let mut header = Header::default();
        credit.stamp(&mut header);
        assert_eq!((header.buf_alloc, header.fwd_cnt), (100, 15));
        assert!(!credit.is_update_due());
    }

    #[test]
    fn update_is_due_for_a_quarter_of_what_the_guest_keeps_if_that_is_less_and_for_something() {
        let mut credit = Credit::new(100);
        credit.learn(&says(40, 0));
        assert!(credit.receive(100));
        credit.forward(9);
        assert!(!credit.is_update_due());
        credit.forward(1);
        assert!(credit.is_update_due());
        credit.stamp(&mut Header::default());
        credit.learn(&says(0, 0));
        assert!(!credit.is_update_due());
        credit.forward(1);
        assert!(credit.is_update_due());
    }
}
