//! When a request may start: rate limits, and turns of the disk's thread.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use vmm_hostio::RateLimiter;

use crate::timer::Timer;

/// Work per turn, in the unit of [`work`](super::request::Request::work): a few milliseconds of disk time,
/// compared with which another epoll_wait is negligible. A larger request gets a turn of its own.
const TURN: u64 = 8 << 20;
/// Time after which a turn admits no more requests: decompressing a cluster for each sector is slow whatever
/// the unit.
const TURN_TIME: Duration = Duration::from_millis(50);

/// Its descriptor becomes readable when a refused request should be retried.
#[derive(Debug)]
pub(super) struct Pace {
    limiter: Option<RateLimiter>,
    /// Rest of the turn, for a disk whose thread does the I/O itself: meanwhile it handles nothing else, not
    /// even a stop.
    turn: Option<Turn>,
    again: Timer,
    /// The timer is set.
    is_set: bool,
}

/// The rest of a turn.
#[derive(Debug)]
struct Turn {
    work: u64,
    /// When its first request started.
    begun: Option<Instant>,
}

impl Turn {
    const NEW: Self = Self { work: TURN, begun: None };

    fn is_over(&self) -> bool {
        self.work == 0 || self.begun.is_some_and(|begun| begun.elapsed() >= TURN_TIME)
    }

    fn take(&mut self, work: u64) {
        self.work = self.work.saturating_sub(work);
        self.begun.get_or_insert_with(Instant::now);
    }
}

impl Pace {
    /// Applies `limiter`. `by_turns`: the caller does the I/O synchronously.
    pub(super) fn new(limiter: Option<RateLimiter>, by_turns: bool) -> io::Result<Self> {
        Ok(Self { limiter, turn: by_turns.then_some(Turn::NEW), again: Timer::new()?, is_set: false })
    }

    /// Whether a request that moves `bytes` and costs `work` may start now.
    pub(super) fn admits(&mut self, bytes: u64, work: u64) -> bool {
        if self.turn.as_ref().is_some_and(Turn::is_over) && self.come_again(Duration::from_nanos(1)) {
            return false;
        }
        if let Some(limiter) = &mut self.limiter
            && let Err(wait) = limiter.take(bytes, Instant::now())
            // An earlier refusal may have set the timer already.
            && (self.is_set || self.come_again(wait))
        {
            return false;
        }
        if let Some(turn) = &mut self.turn {
            turn.take(work);
        }
        true
    }

    /// Replaces the limits. Requests that wait for the old ones are retried at the disk's next event, within
    /// a second.
    pub(super) fn limit(&mut self, limiter: Option<RateLimiter>) {
        self.limiter = limiter;
        self.is_set = false;
    }

    /// Starts a new turn with the timer cleared.
    pub(super) fn restart(&mut self) {
        self.again.acknowledge();
        self.is_set = false;
        self.turn = self.turn.is_some().then_some(Turn::NEW);
    }

    /// Sets the timer. False if that fails: nothing would retry the request then, and ignoring a limit is
    /// better than a disk that hangs.
    fn come_again(&mut self, wait: Duration) -> bool {
        self.is_set = self.again.once(wait).is_ok();
        self.is_set
    }
}

impl AsRawFd for Pace {
    fn as_raw_fd(&self) -> RawFd {
        self.again.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turn_is_over_when_its_work_is_done_or_its_time() {
        let begun = Instant::now();
        assert!(!Turn::NEW.is_over());
        assert!(!Turn { work: 1, begun: Some(begun + TURN_TIME) }.is_over());
        assert!(Turn { work: 1, begun: begun.checked_sub(TURN_TIME) }.is_over());
        assert!(Turn { work: 0, begun: None }.is_over());
    }

    #[test]
    fn turn_begins_with_its_first_request() {
        let mut turn = Turn::NEW;
        turn.take(TURN + 1);
        assert!(turn.work == 0 && turn.begun.is_some());
    }
}
