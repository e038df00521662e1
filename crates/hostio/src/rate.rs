//! Token bucket rate limiter.

use std::time::{Duration, Instant};

const NANOSECONDS: i128 = 1_000_000_000;

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens added per second. Not 0.
    pub per_second: u64,
    /// Capacity of the bucket. Not 0.
    pub burst: u64,
}

/// Limits a device's bytes and operations.
///
/// Each limit is a bucket that holds at most `burst` tokens, starts full, and gains `per_second` tokens each
/// second. Over any `t` seconds, requests worth at most `burst + per_second * t` start, plus one: a request
/// larger than the bucket may start when it is full, and leaves a debt.
#[derive(Debug)]
pub struct RateLimiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl RateLimiter {
    /// Creates a limiter with full buckets. `None` is no limit.
    pub fn new(bytes: Option<Rate>, operations: Option<Rate>, now: Instant) -> Self {
        let bucket = |rate| Bucket::new(rate, now);
        Self { bytes: bytes.map(bucket), operations: operations.map(bucket) }
    }

    /// Takes one operation of `bytes`.
    ///
    /// # Errors
    /// The limit is reached: nothing was taken, and the request should be retried after the returned time.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Result<(), Duration> {
        let wait = |bucket: &mut Option<Bucket>, cost| match bucket {
            Some(bucket) => bucket.wait(cost, now),
            None => Duration::ZERO,
        };
        let wait = wait(&mut self.bytes, bytes).max(wait(&mut self.operations, 1));
        if !wait.is_zero() {
            return Err(wait);
        }
        let costs = [(&mut self.bytes, bytes), (&mut self.operations, 1)];
        for (bucket, cost) in costs {
            if let Some(bucket) = bucket {
                bucket.level -= i128::from(cost) * NANOSECONDS;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// Tokens, in billionths: each nanosecond adds a whole number of them, so nothing is ever rounded. The
    /// maximum is 2^64 * 10^9, far below 2^127.
    level: i128,
    filled: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, level: i128::from(rate.burst) * NANOSECONDS, filled: now }
    }

    /// Time until `cost` can be taken; zero if it can be now.
    fn wait(&mut self, cost: u64, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.filled).as_nanos();
        // No host has been up for 2^63 nanoseconds.
        let elapsed = i128::from(u64::try_from(elapsed).unwrap_or(u64::MAX));
        let per_second = i128::from(self.rate.per_second);
        let full = i128::from(self.rate.burst) * NANOSECONDS;
        self.level = (self.level + elapsed * per_second).min(full);
        self.filled = self.filled.max(now);
        let lacking = i128::from(cost.min(self.rate.burst)) * NANOSECONDS - self.level;
        if lacking <= 0 {
            return Duration::ZERO;
        }
        // Rounded up, so that a retry after that time succeeds.
        let wait = (lacking + per_second - 1) / per_second.max(1);
        Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(per_second: u64, burst: u64, now: Instant) -> RateLimiter {
        RateLimiter::new(Some(Rate { per_second, burst }), None, now)
    }

    #[test]
    fn limiter_without_limits_never_waits() {
        let now = Instant::now();
        let mut limiter = RateLimiter::new(None, None, now);
        assert_eq!(limiter.take(u64::MAX, now), Ok(()));
        assert_eq!(limiter.take(u64::MAX, now), Ok(()));
    }

    #[test]
    fn burst_is_there_at_once_and_then_the_rate() {
        let now = Instant::now();
        let mut limiter = bytes(1000, 300, now);
        assert_eq!(limiter.take(300, now), Ok(()));
        assert_eq!(limiter.take(100, now), Err(Duration::from_millis(100)));
        assert_eq!(limiter.take(100, now + Duration::from_millis(100)), Ok(()));
    }

    #[test]
    fn request_larger_than_the_burst_goes_when_it_is_full_and_leaves_a_debt() {
        let now = Instant::now();
        let mut limiter = bytes(1000, 100, now);
        assert_eq!(limiter.take(1100, now), Ok(()));
        // 1000 below zero, and 1 requested.
        assert_eq!(limiter.take(1, now), Err(Duration::from_millis(1001)));
    }

    #[test]
    fn operation_refused_takes_no_bytes() {
        let now = Instant::now();
        let rate = |per_second| Some(Rate { per_second, burst: per_second });
        let mut limiter = RateLimiter::new(rate(1000), rate(1), now);
        assert_eq!(limiter.take(500, now), Ok(()));
        assert_eq!(limiter.take(500, now), Err(Duration::from_secs(1)));
        assert_eq!(limiter.bytes.as_ref().unwrap().level, 500 * NANOSECONDS);
    }

    #[test]
    fn clock_that_goes_back_brings_nothing() {
        let now = Instant::now() + Duration::from_secs(10);
        let mut limiter = bytes(1000, 1000, now);
        assert_eq!(limiter.take(1000, now), Ok(()));
        assert_eq!(limiter.take(1000, now - Duration::from_secs(5)), Err(Duration::from_secs(1)));
        assert_eq!(limiter.take(1000, now), Err(Duration::from_secs(1)));
    }

    proptest! {
        /// The total started within a period stays within the bound, and a retry after the returned time
        /// succeeds.
        #[test]
        fn taken_never_exceeds_the_bound(
            per_second in 1..1u64 << 40,
            burst in 1..1u64 << 40,
            requests in prop::collection::vec((1..1u64 << 41, 0..1u64 << 33), 1..50),
        ) {
            let start = Instant::now();
            let (mut now, mut taken, mut last) = (start, 0_u128, 0_u128);
            let mut limiter = bytes(per_second, burst, start);
            for (cost, pause) in requests {
                now += Duration::from_nanos(pause);
                if let Err(wait) = limiter.take(cost, now) {
                    now += wait;
                    prop_assert_eq!(limiter.take(cost, now), Ok(()));
                }
                // Without the last request, which may exceed the bound.
                taken += last;
                last = u128::from(cost);
                let elapsed = now.duration_since(start).as_nanos();
                prop_assert!(
                    taken * 1_000_000_000 <= u128::from(burst) * 1_000_000_000 + elapsed * u128::from(per_second)
                );
            }
        }
    }
}
