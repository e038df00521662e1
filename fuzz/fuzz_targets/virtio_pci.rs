//! As virtio_mmio, in the BAR of a PCI function: the common configuration and the other structures, MSI-X's table and pending bits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::registers::{self, Counter};
use vmm_virtio::testing::{Driver, without_filters};
use vmm_virtio::{PCI_BAR_LEN, PCI_NOTIFY};

fuzz_target!(init: without_filters(), |data: &[u8]| {
    // Fields of the common configuration are 1, 2 or 4 bytes wide.
    registers::access(Driver::new_pci(Counter::new(), 42), data, |kind, place| match kind {
        0 => u64::from(place),
        1 => PCI_BAR_LEN - 8,
        2 => 0x2000 + u64::from(place % 8),
        3 => 0x4000 + u64::from(place),
        4 => PCI_NOTIFY + u64::from(place),
        5 => 0x8000 + u64::from(place % 16) * 4,
        6 => 0x4_8000 + u64::from(place % 16),
        _ => u64::from(place % 32) * 2,
    });
});
