//! Transmission: from the guest to the link.

use std::io;

use vmm_virtio::{Buffers, Fault, Session, Step};

use super::Net;
use super::link::Link;
use super::sizes::{FRAME_LEN, FRAME_MIN, HEADER_LEN};

impl Net {
    /// Sends the queue's frames. A frame that can't be sent is dropped: a congested or broken host doesn't
    /// stop the guest.
    pub(super) fn transmit(&mut self, index: usize, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        // Frames on an inactive pair are sent through the first link.
        let place = if index < self.active { index } else { 0 };
        let Some(pair) = self.pairs.get_mut(place) else { return Ok(()) };
        let (pace, is_unplugged, mut waits) = (&mut self.pace, self.is_unplugged, false);
        session.drain(2 * index + 1, |chain| {
            let frame = chain.readable();
            if !pace.take(frame.len()) {
                waits = true;
                return Ok(Step::Full);
            }
            counters.requests.add(1);
            if is_unplugged {
                counters.refused.add(1);
                return Ok(Step::Used(0));
            }
            match send(&mut *pair.link, &frame) {
                Ok(()) => counters.bytes_out.add(frame.len() - HEADER_LEN as u64),
                Err(_) => counters.errors.add(1),
            }
            Ok(Step::Used(0))
        })?;
        pair.settle(place, session);
        let answers = pair.link.answers();
        self.pairs[index].transmit_waits = waits;
        if answers { self.receive(place, session) } else { Ok(()) }
    }
}

fn send(link: &mut dyn Link, frame: &Buffers<'_>) -> io::Result<()> {
    if !(FRAME_MIN as u64..=FRAME_LEN as u64).contains(&frame.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    link.send(frame)
}
