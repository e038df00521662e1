//! From the guest to the port.

use std::io;

use vmm_virtio::{Buffers, Fault, FramePort, IoSlices, Session, Step};

use super::{FRAME_LEN, FRAME_MIN, HEADER_LEN, Net};

impl Net {
    /// Sends what the queue has. A frame that can't be sent is dropped: a full or broken host stops no guest.
    pub(super) fn transmit(&mut self, index: usize, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        // What a driver gives to a pair that it doesn't use may still go.
        let place = if index < self.active { index } else { 0 };
        let Some(pair) = self.pairs.get_mut(place) else { return Ok(()) };
        let (pace, mut waits) = (&mut self.pace, false);
        session.drain(2 * index + 1, |chain| {
            let frame = chain.readable();
            if !pace.take(frame.len()) {
                waits = true;
                return Ok(Step::Full);
            }
            counters.requests.add(1);
            match send(&pair.port, &mut pair.slices, &frame) {
                Ok(()) => counters.bytes_out.add(frame.len() - HEADER_LEN as u64),
                Err(_) => counters.errors.add(1),
            }
            Ok(Step::Used(0))
        })?;
        self.pairs[index].transmit_waits = waits;
        Ok(())
    }
}

/// The kernel reads the header once and checks it (Linux, drivers/net/tun.c, tun_get_user).
fn send(port: &FramePort, slices: &mut IoSlices, frame: &Buffers<'_>) -> io::Result<()> {
    if !(FRAME_MIN as u64..=FRAME_LEN as u64).contains(&frame.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    slices.fill(frame)?;
    let sent = loop {
        match port.send(slices) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    slices.clear();
    sent.map(drop)
}
