//! State of a network that all flows share.

use std::time::Duration;

use crate::control::ControlQueue;
use crate::link::{HEADER_LEN, Link};
use crate::packet::{LONGEST_BARE_SEGMENT, Packet};
use crate::tcp::stack::Stack;
use crate::unreachable::{self, Reason};

/// Lent to a flow while it handles an event or packet.
pub(crate) struct Shared {
    pub(crate) stack: Stack,
    pub(crate) control: ControlQueue,
    pub(crate) link: Link,
    pub(crate) mtu: usize,
    /// How long a quiet connection keeps its buffers: `tcp::QUIET`, except in tests.
    pub(crate) quiet: Duration,
    /// Whether the guest accepts partial TCP and UDP checksums.
    pub(crate) may_complete_checksums: bool,
    /// Buffers for the frame being built, and for a copy of a packet.
    pub(crate) frame: Vec<u8>,
    pub(crate) scratch: Vec<u8>,
}

impl Shared {
    /// Tells the guest why `packet` isn't delivered.
    pub(crate) fn unreachable(&mut self, packet: &Packet<'_>, why: Reason) {
        if !self.control.is_full() {
            unreachable::write(&mut self.frame, &self.link, packet, why);
            self.control.push(&self.frame);
        }
    }

    /// Answers a TCP segment with a reset, unless it is one itself.
    pub(crate) fn refuse_segment(&mut self, packet: &[u8]) {
        let mut frame = [0; HEADER_LEN + LONGEST_BARE_SEGMENT];
        let Some(len) = self.stack.refuse(packet, &mut frame[HEADER_LEN..]) else { return };
        let frame = &mut frame[..HEADER_LEN + len];
        crate::packet::finish_whole(&mut frame[HEADER_LEN..]);
        self.link.seal(frame);
        self.control.push(frame);
    }
}
