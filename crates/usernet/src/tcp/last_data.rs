//! The last data of a connection that has ended for the guest.
//!
//! Closing a socket with unread input resets the connection, and the kernel drops what the peer's kernel hasn't
//! acknowledged; so does input that comes later (RFC 2525 §2.17). So input is discarded here, and the socket stays
//! open until the peer has acknowledged all data, or has ended too. If the process ends earlier, the kernel goes on
//! sending what it has taken, and only data that it hasn't taken makes the end a reset.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::progress::acknowledged;
use super::{Phase, Tcp};
use crate::host;
use crate::pull_outcome::{Closing, PullOutcome};
use crate::undelivered::UndeliveredTcp;

/// Bytes of input discarded at a time, and how often in one turn: the peer may send endlessly.
const PIECE_LEN: usize = 16 << 10;
const PIECES: u32 = 64;

/// How long the peer may take to acknowledge the end itself. Nothing is lost after that: the kernel goes on sending
/// it, and the peer sees a reset at worst.
const END_PATIENCE: Duration = Duration::from_secs(1);

impl Tcp {
    /// The guest is gone. Returns whether data that was acknowledged to it remains to be delivered.
    pub(crate) fn forget_guest(&mut self) -> bool {
        self.guest_ended = true;
        self.phase = Phase::Draining;
        self.readable = true;
        self.deliver().is_some()
    }

    /// Passes data that was acknowledged to the guest to the host, and returns what remains; `None` also if the
    /// host's side has failed. If the guest isn't gone, the connection may go on later.
    pub(crate) fn deliver(&mut self) -> Option<UndeliveredTcp> {
        if self.send_to_host().is_err() {
            self.fail();
        }
        let (len, mut sent_len) = (self.kept_len(), 0);
        if self.phase == Phase::Draining {
            self.failed |= self.discard_input().is_err();
            sent_len = self.unacknowledged();
            self.set_undelivered(len > 0);
        }
        let Self { guest, remote, .. } = *self;
        (len + sent_len > 0 && !self.failed).then_some(UndeliveredTcp { guest, remote, len, sent_len })
    }

    /// The turn of a connection that is draining.
    pub(super) fn drain(&mut self) -> PullOutcome {
        if self.deliver().is_none() {
            PullOutcome::End(Closing::Orderly)
        } else if self.readable {
            PullOutcome::Again
        } else {
            PullOutcome::Idle(self.arrived_at.map(|at| at + END_PATIENCE))
        }
    }

    /// Number of bytes that the host's socket hasn't taken.
    pub(super) fn kept_len(&self) -> usize {
        self.endpoint.as_ref().map_or(0, |endpoint| endpoint.socket().recv_queue())
    }

    /// Even if the monitor is killed, the peer can't mistake what it has received for everything.
    pub(super) fn set_undelivered(&mut self, has_undelivered: bool) {
        if has_undelivered != self.has_undelivered {
            self.has_undelivered = has_undelivered;
            host::close_by_reset(&self.host, has_undelivered);
        }
    }

    fn discard_input(&mut self) -> Result<(), Errno> {
        let mut piece = [0; PIECE_LEN];
        for _ in 0..PIECES {
            if !self.readable {
                break;
            }
            match rustix::net::recv(&self.host, &mut piece, RecvFlags::DONTWAIT) {
                Ok((0, _)) => (self.readable, self.host_ended) = (false, true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.readable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Number of bytes that the host's socket has taken and the peer's kernel hasn't. The end of the stream counts
    /// as one while it is waited for alone. 0 if the kernel delivers them in any case: no input can come any more.
    fn unacknowledged(&mut self) -> usize {
        if self.written == 0 || self.host_ended {
            return 0;
        }
        let Some(acknowledged) = acknowledged(&self.host) else { return 0 };
        let written = self.written + u64::from(!self.is_accepted);
        let len = written.saturating_sub(acknowledged);
        if len > 0 {
            return len as usize;
        }
        let arrived_at = *self.arrived_at.get_or_insert_with(Instant::now);
        let has_ended = acknowledged > written || arrived_at.elapsed() >= END_PATIENCE;
        usize::from(self.sent_end && !has_ended)
    }
}
