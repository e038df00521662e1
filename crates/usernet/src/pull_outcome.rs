//! Types shared by flows and the network: the outcome of a pull, how a flow ends, and its age.

use std::time::{Duration, Instant};

use crate::packet::PartialChecksum;

/// How a flow's host socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    Orderly,
    /// With a reset to the peer.
    Reset,
}

/// The outcome of asking a flow for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullOutcome {
    /// A frame of this length.
    Frame(usize, Option<PartialChecksum>),
    /// No frame, but there may be one if asked again.
    Again,
    /// No frame until there is an event, a packet from the guest, or this time.
    Idle(Option<Instant>),
    /// It has ended for the guest, and lasts until the host has all data.
    Detach,
    End(Closing),
}

/// Time since a flow that has no end of its own was last used.
#[derive(Debug)]
pub(crate) struct Age {
    used_at: Instant,
    limit: Duration,
    was_used: bool,
}

impl Age {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { used_at: Instant::now(), limit, was_used: true }
    }

    pub(crate) fn used(&mut self) {
        self.used_at = Instant::now();
        self.was_used = true;
    }

    /// Whether the flow was used since the last call.
    pub(crate) fn take_used(&mut self) -> bool {
        std::mem::take(&mut self.was_used)
    }

    /// The outcome for a flow without a frame: idle, or ended if it is too old.
    pub(crate) fn idle(&self) -> PullOutcome {
        let ends_at = self.used_at + self.limit;
        if ends_at <= Instant::now() {
            PullOutcome::End(Closing::Orderly)
        } else {
            PullOutcome::Idle(Some(ends_at))
        }
    }
}
