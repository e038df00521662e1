//! Reception: from the link to the guest.

use std::io;

use vmm_virtio::vm_memory::{Bytes, GuestAddress};
use vmm_virtio::{Chain, Counters, Fault, Session, Step};

use super::link::Link;
use super::properties::{self, F_MRG_RXBUF};
use super::receiver::Receiver;
use super::sizes::{FRAME_MIN, HEADER_LEN};
use super::{Net, Pace};

/// Maximum number of consecutive frames to drop before the thread handles other events.
const DROPS: u32 = 64;

/// Why a link's frames wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The driver has no more chains, and notifies when it has.
    Chains,
    /// The link has no more frames.
    Frames,
    Tokens,
    /// For the thread's other events, which come first.
    Turn,
    /// Nothing to wait for: the link has ended.
    Nothing,
}

impl Net {
    /// Copies received frames to the driver's buffers, as far as they suffice.
    pub(super) fn receive(&mut self, index: usize, session: &mut Session) -> Result<(), Fault> {
        let active = self.active;
        let Some(pair) = self.pairs.get_mut(index).filter(|pair| index < active && !pair.is_gone) else {
            return Ok(());
        };
        let queue = 2 * index;
        let mut intake = Intake {
            link: &mut *pair.link,
            receiver: &mut pair.receiver,
            pace: &mut self.pace,
            is_unplugged: self.is_unplugged,
            counters: &session.counters().clone(),
            features: session.features(),
            wait: Wait::Chains,
        };
        let ram = session.ram().clone();
        let store = |gpa: u64, byte: u8| {
            ram.memory().write_obj(byte, GuestAddress(gpa)).map_err(|_| Fault::Unmapped { gpa, len: 1 })
        };
        session.drain(queue, |chain| intake.step(&chain, &store))?;
        let wait = intake.wait;
        pair.receiver.complete(queue, session)?;
        pair.receive_waits = matches!(wait, Wait::Tokens | Wait::Turn);
        if wait == Wait::Turn {
            // The descriptor doesn't report frames that are in the link already.
            self.pace.come_again();
        }
        pair.wants_frames = wait == Wait::Frames;
        pair.settle(index, session);
        if wait == Wait::Nothing {
            pair.is_gone = true;
            self.settle_link(session);
        }
        Ok(())
    }
}

/// The state of one run over a queue.
struct Intake<'a> {
    link: &'a mut dyn Link,
    receiver: &'a mut Receiver,
    pace: &'a mut Pace,
    is_unplugged: bool,
    counters: &'a Counters,
    features: u64,
    wait: Wait,
}

impl Intake<'_> {
    fn step(
        &mut self,
        chain: &Chain<'_>,
        store: &impl Fn(u64, u8) -> Result<(), Fault>,
    ) -> Result<Step, Fault> {
        let room = chain.writable();
        let begins = self.receiver.given == 0;
        // The chain is too short; it is returned so that it doesn't block the next one.
        if room.is_empty() || begins && room.len() < FRAME_MIN as u64 {
            self.counters.errors.add(1);
            return Ok(Step::Used(0));
        }
        if begins && let Some(wait) = self.find_frame(room.len()) {
            self.wait = wait;
            return Ok(Step::Full);
        }
        let frame_len = self.receiver.len;
        let step = self.receiver.give(chain.head(), &room, store)?;
        if self.receiver.len == 0 {
            self.counters.requests.add(1);
            self.counters.bytes_in.add((frame_len - HEADER_LEN) as u64);
        }
        Ok(step)
    }

    /// Ensures that the buffer has a frame that may go into a chain of `room` bytes, or returns what to wait
    /// for.
    fn find_frame(&mut self, room: u64) -> Option<Wait> {
        let is_mergeable = self.features & 1 << F_MRG_RXBUF != 0;
        for _ in 0..DROPS {
            if self.receiver.len == 0 {
                match self.link.receive(&mut self.receiver.buffer) {
                    Ok(0) => return Some(Wait::Nothing),
                    Ok(len) => (self.receiver.len, self.receiver.is_paid) = (len, false),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(Wait::Frames),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => return Some(Wait::Nothing),
                }
            }
            if self.is_unplugged {
                self.receiver.len = 0;
                self.counters.refused.add(1);
                continue;
            }
            let len = self.receiver.len;
            let fits = len >= FRAME_MIN && (is_mergeable || len as u64 <= room);
            if !fits || !properties::adapt(&mut self.receiver.buffer[..HEADER_LEN], self.features) {
                self.receiver.len = 0;
                self.counters.requests.add(1);
                self.counters.errors.add(1);
                continue;
            }
            self.receiver.is_paid = self.receiver.is_paid || self.pace.take(len as u64);
            return (!self.receiver.is_paid).then_some(Wait::Tokens);
        }
        Some(Wait::Turn)
    }
}
