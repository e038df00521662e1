//! What a flow had for the guest, how it ends and how it ages: the words that flows and the network use with each other.

use std::time::{Duration, Instant};

use crate::packet::PartialChecksum;

/// How a flow's host socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Orderly,
    /// The other end gets a reset.
    Reset,
}

/// What a flow had for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// A frame of this length.
    Frame(usize, Option<PartialChecksum>),
    /// Nothing, but there may be more if it is asked again.
    Again,
    /// Nothing, until there is news, a packet of the guest's or this time.
    Idle(Option<Instant>),
    End(End),
}

/// How long ago a flow without an end of its own was used.
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

    /// Whether it was used since this was asked the last time.
    pub(crate) fn take_used(&mut self) -> bool {
        std::mem::take(&mut self.was_used)
    }

    /// What a flow that has nothing for the guest says.
    pub(crate) fn idle(&self) -> Pulled {
        let ends_at = self.used_at + self.limit;
        if ends_at <= Instant::now() { Pulled::End(End::Orderly) } else { Pulled::Idle(Some(ends_at)) }
    }
}
