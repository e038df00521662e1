//! Accesses to a device's registers at arbitrary addresses, of any width and value, with suspends in between.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::registers::{self, Counter};
use vmm_virtio::MMIO_LEN;
use vmm_virtio::testing::{Driver, without_filters};

fuzz_target!(init: without_filters(), |data: &[u8]| {
    // Registers are 4 bytes apart up to the configuration space; some accesses are unaligned, some at the end.
    registers::access(Driver::new(Counter::new(), 42), data, |kind, place| match kind {
        0 => u64::from(place),
        1 => MMIO_LEN - 8,
        _ => u64::from(place % 72) * 4,
    });
});
