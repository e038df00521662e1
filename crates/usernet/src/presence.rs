//! Whether the guest has its address. If not, connections to forwarded ports are refused instead of left
//! waiting.

use std::time::{Duration, Instant};

use crate::addresses::GUEST_V4;
use crate::link::HEADER_LEN;

/// How long the guest has to answer an ARP request for 10.0.2.15. Kernels answer in microseconds, emulated
/// ones in milliseconds.
const ANSWER: Duration = Duration::from_millis(250);
/// How long a missing answer is remembered.
const SILENCE: Duration = Duration::from_secs(1);

/// What is known about the guest's address.
///
/// ```text
/// Unknown --connection attempt--> Asked --250 ms--> refused --1 s--> Unknown
///    ^                               |
///    |                               +--packet from the guest, in any state--> There
///    +--driver stops, DHCP release, connection not answered---------------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Unknown,
    /// The time at which the guest was asked.
    Asked(Instant),
    There,
}

/// What to do with a connection at a forwarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    Serve,
    /// Ask the guest; connections wait until then.
    Ask(Instant),
    Wait(Instant),
    Refuse,
}

impl Presence {
    /// What to do now. The caller must ask the guest if told to.
    pub(crate) fn treat(&mut self, now: Instant) -> Treatment {
        match *self {
            Self::There => Treatment::Serve,
            Self::Asked(at) if now < at + ANSWER => Treatment::Wait(at + ANSWER),
            Self::Asked(at) if now < at + ANSWER + SILENCE => Treatment::Refuse,
            Self::Asked(_) | Self::Unknown => {
                *self = Self::Asked(now);
                Treatment::Ask(now + ANSWER)
            }
        }
    }
}

/// Whether the frame was sent by a guest that has its address: an IPv4 or ARP packet with it as the source.
pub(crate) fn is_from_guest(frame: &[u8]) -> bool {
    let Some((header, packet)) = frame.split_at_checked(HEADER_LEN) else { return false };
    let sender = match header[12..] {
        [0x08, 0x00] => packet.get(12..16),
        // ARP for Ethernet and IPv4 (RFC 826), the only kind on this link.
        [0x08, 0x06] => packet.get(14..18),
        _ => None,
    };
    sender == Some(&GUEST_V4.octets()[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_that_is_silent_is_asked_once_a_while_and_refused_between() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut presence = Presence::Unknown;
        assert_eq!(presence.treat(start), Treatment::Ask(ms(250)));
        assert_eq!(presence.treat(ms(249)), Treatment::Wait(ms(250)));
        assert_eq!(presence.treat(ms(250)), Treatment::Refuse);
        assert_eq!(presence.treat(ms(1249)), Treatment::Refuse);
        assert_eq!(presence.treat(ms(1250)), Treatment::Ask(ms(1500)));
        presence = Presence::There;
        assert_eq!(presence.treat(ms(9999)), Treatment::Serve);
    }

    /// Address conflict detection probes (RFC 5227 §1.1) and DHCP discover messages have no source address.
    #[test]
    fn frame_with_the_guests_address_as_its_sender_is_from_the_guest() {
        let frame = |kind: [u8; 2], at: usize, sender: [u8; 4]| {
            let mut frame = vec![0; 60];
            frame[12..14].copy_from_slice(&kind);
            frame[at..at + 4].copy_from_slice(&sender);
            frame
        };
        assert!(is_from_guest(&frame([8, 0], 26, [10, 0, 2, 15])));
        assert!(is_from_guest(&frame([8, 6], 28, [10, 0, 2, 15])));
        assert!(!is_from_guest(&frame([8, 0], 26, [0, 0, 0, 0])));
        assert!(!is_from_guest(&frame([8, 6], 28, [0, 0, 0, 0])));
        assert!(!is_from_guest(&frame([8, 6], 38, [10, 0, 2, 15])));
        assert!(!is_from_guest(&frame([0x86, 0xdd], 26, [10, 0, 2, 15])));
        assert!(!is_from_guest(&[0; 14]));
        assert!(!is_from_guest(&[]));
    }
}
