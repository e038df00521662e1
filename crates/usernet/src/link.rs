//! Ethernet framing.

use crate::addresses::GATEWAY_MAC;

/// Length of an Ethernet header: destination, source and type.
pub(crate) const HEADER_LEN: usize = 14;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// The guest's end of the link.
#[derive(Debug)]
pub(crate) struct Link {
    guest: [u8; 6],
}

/// An IP packet in a frame to the gateway.
pub(crate) enum IpBytes<'a> {
    V4(&'a [u8]),
    V6(&'a [u8]),
}

impl Link {
    /// Frames are sent to the hardware address `guest` until the guest sends one.
    pub(crate) fn new(guest: [u8; 6]) -> Self {
        Self { guest }
    }

    /// The guest's hardware address.
    pub(crate) fn guest(&self) -> [u8; 6] {
        self.guest
    }

    /// The IP packet in a frame from the guest; `None` if it isn't IP or isn't for the gateway.
    pub(crate) fn open<'a>(&mut self, frame: &'a [u8]) -> Option<IpBytes<'a>> {
        let (header, packet) = frame.split_at_checked(HEADER_LEN)?;
        let (to, rest) = header.split_at(6);
        let (from, kind) = rest.split_at(6);
        // The lowest bit of the first byte marks a group address (IEEE 802.3 §3.2.3), which can't be a
        // source.
        if to != GATEWAY_MAC || from[0] & 1 == 1 {
            return None;
        }
        let carried = match [kind[0], kind[1]] {
            IPV4 => IpBytes::V4(packet),
            IPV6 => IpBytes::V6(packet),
            _ => return None,
        };
        // Linux allows changing the hardware address, and then accepts only the new one.
        self.guest.copy_from_slice(from);
        Some(carried)
    }

    /// Writes the header of a frame whose packet starts at `frame[HEADER_LEN]`.
    pub(crate) fn seal(&self, frame: &mut [u8]) {
        frame[..6].copy_from_slice(&self.guest);
        frame[6..12].copy_from_slice(&GATEWAY_MAC);
        let is_v6 = frame[HEADER_LEN] >> 4 == 6;
        frame[12..HEADER_LEN].copy_from_slice(if is_v6 { &IPV6 } else { &IPV4 });
    }
}
