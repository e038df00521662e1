//! What a device counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        // A count orders nothing.
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What every device counts, from the machine's start on.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that the device carried out or refused.
    pub requests: Counter,
    /// Bytes that it gave the guest.
    pub bytes_in: Counter,
    /// Bytes that it took from the guest.
    pub bytes_out: Counter,
    /// Requests that failed.
    pub errors: Counter,
    /// What the device's own rules refused, such as connections that the config doesn't allow.
    pub refused: Counter,
    /// Times that the driver rang.
    pub kicks: Counter,
    /// Times that the device rang.
    pub interrupts: Counter,
    /// Times that the device had to give up until a reset.
    pub faults: Counter,
}

impl Counters {
    /// Each with its name.
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
