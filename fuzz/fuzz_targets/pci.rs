//! Configuration accesses to a virtio function by ports and by memory, at arbitrary offsets and of any width and value: BARs, COMMAND,
//! MSI-X, and the window to the registers; and accesses to the registers where the BAR is decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_bus::{BusDevice, Outcome};
use vmm_fuzz::registers::{self, Counter};
use vmm_virtio::PCI_BAR_LEN;
use vmm_virtio::testing::{Driver, without_filters};

/// The function's place in the memory of the bus.
const SLOT: u64 = 3 << 15;

/// Widths of accesses.
const WIDTHS: [usize; 4] = [1, 2, 4, 8];

// Steps of eight bytes: the action and width, the place, and four bytes of the value, which can be repeated.
fuzz_target!(init: without_filters(), |data: &[u8]| {
    let driver = Driver::new_pci(Counter::new(), 42);
    for step in data.chunks_exact(8).take(256) {
        let &[what, place, high, repeat, a, b, c, d] = step else { unreachable!() };
        let width = WIDTHS[usize::from(what >> 4 & 3)];
        let place = u64::from(place) | u64::from(high) << 8;
        let [low, upper] = [[a, b, c, d], if repeat & 1 == 0 { [0; 4] } else { [a, b, c, d] }];
        let mut value = [low, upper].concat();
        value.truncate(width);
        act(&driver, what & 15, place, &mut value);
    }
    registers::works(driver);
});

fn act(driver: &Driver, what: u8, place: u64, value: &mut [u8]) {
    let function = driver.function();
    let outcome = match what {
        // The registers of the header and the capabilities.
        0..4 => function.write_config((place & 0xff).min(0x100 - value.len() as u64), value),
        4 => function.write_config(place.min(0x1000 - value.len() as u64), value),
        5 | 6 => {
            function.read_config((place & 0xff).min(0x100 - value.len() as u64), value);
            Outcome::Done
        }
        // Any function's.
        7 => {
            let address = (1 << 31 | place & 0xffff_fffc).to_le_bytes();
            assert_eq!(function.cam().write(0, &address[..4]), Outcome::Done);
            function.cam().write((place & 7).min(8 - value.len() as u64), value)
        }
        8 => {
            let address = (1 << 31 | SLOT >> 4 | place & 0xfc).to_le_bytes();
            assert_eq!(function.cam().write(0, &address[..4]), Outcome::Done);
            function.cam().write((4 + (place & 3)).min(8 - value.len() as u64), value)
        }
        9 => {
            function.cam().read((place & 7).min(8 - value.len() as u64), value);
            Outcome::Done
        }
        10 => {
            driver.read_bytes((place << 3).min(PCI_BAR_LEN - value.len() as u64), value);
            Outcome::Done
        }
        // The common configuration, and anywhere.
        11..15 => driver.port().area().write(place & 0x3f, value),
        _ => driver.port().area().write((place << 3).min(PCI_BAR_LEN - value.len() as u64), value),
    };
    if outcome == Outcome::Hold {
        driver.wait_hold();
    }
}
