//! The end of a guest: what it regards as sent is still delivered.
//!
//! TCP data is acknowledged when it has a place in our buffers, which may be long before the host's peer takes
//! it. Acknowledging only what the host's kernel has taken was rejected: a guest retransmits what isn't
//! acknowledged and gives up after some minutes, so a peer that reads slowly would end its connections, whereas
//! a closed window holds them open for as long as it takes.

use std::time::{Duration, Instant};

use crate::pull_outcome::Closing;
use crate::undelivered::UndeliveredTcp;
use crate::usernet::UserNet;

/// How often to ask what the peers have acknowledged, which isn't an event.
const TURN: Duration = Duration::from_millis(20);

impl UserNet {
    /// The guest is gone, and another may follow: ends its flows. Connections with data for the host last until
    /// that is delivered, by [`receive`](Self::receive) or [`deliver`](Self::deliver).
    pub fn forget_guest(&mut self) {
        self.resets.clear();
        for token in self.table.tokens() {
            let has_data = self.table.get(token).is_some_and(|flow| flow.forget_guest());
            if has_data {
                self.table.detach(token);
                self.table.make_ready(token);
            } else {
                self.end(token, Closing::Orderly);
            }
        }
    }

    /// Passes data that was acknowledged to the guest to the host's peers, as far as they acknowledge it within
    /// `patience`, and returns what remains. It may be called again; nothing is received for the guest meanwhile. If the
    /// guest isn't [forgotten](Self::forget_guest), what the host's sockets take counts as delivered, and its connections
    /// go on when it takes frames again. If the network is dropped, or its process killed, with data remaining, the host's
    /// peer sees a reset.
    pub fn deliver(&mut self, patience: Duration) -> Vec<UndeliveredTcp> {
        let until = Instant::now() + patience;
        loop {
            self.poll_host();
            let left: Vec<_> = self.table.flows_mut().filter_map(|flow| flow.deliver()).collect();
            let now = Instant::now();
            if left.is_empty() || now >= until {
                return left;
            }
            self.watch.wait((until - now).min(TURN));
        }
    }
}
