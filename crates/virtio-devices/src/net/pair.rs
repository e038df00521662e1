//! A queue pair and its link.

use vmm_virtio::Session;

use super::link::Link;
use super::receiver::Receiver;

/// A receive queue, a transmit queue and the link that they are connected to.
pub(super) struct Pair {
    pub(super) link: Box<dyn Link>,
    pub(super) receiver: Receiver,
    pub(super) is_attached: bool,
    /// The driver has buffers.
    pub(super) wants_frames: bool,
    /// The link's count of refused frames when it was last added to the counters.
    pub(super) refused: u64,
    pub(super) is_watched: bool,
    /// The link has ended, and there is nothing to wait for.
    pub(super) is_gone: bool,
    /// The transmit queue has chains that exceed the rate limit.
    pub(super) transmit_waits: bool,
    pub(super) receive_waits: bool,
}

impl Pair {
    /// Called after each activity: logs the link's messages, and updates what to wait for.
    pub(super) fn settle(&mut self, index: usize, session: &Session) {
        while let Some(notice) = self.link.take_notice() {
            session.tell(notice);
        }
        while let Some(destination) = self.link.take_refused() {
            session.tell_refused(destination);
        }
        let refused = self.link.refused();
        session.counters().refused.add(refused - self.refused);
        self.refused = refused;
        let wanted = self.link.wait_for(self.wants_frames);
        let done = match wanted {
            Ok(true) if !self.is_watched => session.watch(&self.link.fd(), index as u32),
            Ok(false) if self.is_watched => session.unwatch(&self.link.fd()),
            Ok(_) => return,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => self.is_watched = !self.is_watched,
            Err(_) => session.counters().errors.add(1),
        }
    }

    pub(super) fn unwatch(&mut self, session: &Session) {
        self.wants_frames = false;
        if std::mem::take(&mut self.is_watched) {
            let _ = session.unwatch(&self.link.fd());
        }
    }
}
