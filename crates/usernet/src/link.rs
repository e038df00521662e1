//! Ethernet: whose frame it is, and the header of ours.

use crate::addresses::GATEWAY_MAC;

/// Destination, source and type.
pub(crate) const HEADER_LEN: usize = 14;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// The guest's end of the wire.
#[derive(Debug)]
pub(crate) struct Link {
    guest: [u8; 6],
}

/// An IP packet's bytes out of a frame for the gateway.
pub(crate) enum Carried<'a> {
    V4(&'a [u8]),
    V6(&'a [u8]),
}

impl Link {
    /// `guest` is where frames go until the guest has sent one.
    pub(crate) fn new(guest: [u8; 6]) -> Self {
        Self { guest }
    }

    /// Where frames go.
    pub(crate) fn guest(&self) -> [u8; 6] {
        self.guest
    }

    /// What a frame of the guest's carries to the gateway; `None`: it is no IP, or for somebody else.
    pub(crate) fn open<'a>(&mut self, frame: &'a [u8]) -> Option<Carried<'a>> {
        let (header, packet) = frame.split_at_checked(HEADER_LEN)?;
        let (to, rest) = header.split_at(6);
        let (from, kind) = rest.split_at(6);
        // The lowest bit of the first byte marks a group (IEEE 802.3 §3.2.3), which can't be a sender.
        if to != GATEWAY_MAC || from[0] & 1 == 1 {
            return None;
        }
        let carried = match [kind[0], kind[1]] {
            IPV4 => Carried::V4(packet),
            IPV6 => Carried::V6(packet),
            _ => return None,
        };
        // Linux lets its address be changed, and then answers to the new one only.
        self.guest.copy_from_slice(from);
        Some(carried)
    }

    /// Puts the header in front of the packet that starts at `frame[HEADER_LEN]`.
    pub(crate) fn seal(&self, frame: &mut [u8]) {
        frame[..6].copy_from_slice(&self.guest);
        frame[6..12].copy_from_slice(&GATEWAY_MAC);
        let is_v6 = frame[HEADER_LEN] >> 4 == 6;
        frame[12..HEADER_LEN].copy_from_slice(if is_v6 { &IPV6 } else { &IPV4 });
    }
}
