//! Per-device counters.

use std::sync::atomic::{AtomicU64, Ordering};

/// A monotonic counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        // Relaxed, because a counter doesn't order other accesses.
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters common to all devices, since the start of the machine.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests carried out or refused.
    pub requests: Counter,
    /// Bytes to the guest.
    pub bytes_in: Counter,
    /// Bytes from the guest.
    pub bytes_out: Counter,
    /// Requests that failed.
    pub errors: Counter,
    /// Requests refused by policy, such as connections that the config doesn't allow.
    pub refused: Counter,
    /// Notifications by the driver.
    pub kicks: Counter,
    /// Interrupts to the driver.
    pub interrupts: Counter,
    /// Failures that required a reset.
    pub faults: Counter,
}

impl Counters {
    /// The counters with their names.
    pub fn each(&self) -> [(&'static str, u64); 8] {
        [
            ("requests", self.requests.get()),
            ("bytes_in", self.bytes_in.get()),
            ("bytes_out", self.bytes_out.get()),
            ("errors", self.errors.get()),
            ("refused", self.refused.get()),
            ("kicks", self.kicks.get()),
            ("interrupts", self.interrupts.get()),
            ("faults", self.faults.get()),
        ]
    }
}
