//! The section of a virtio device in a snapshot, damaged anywhere, with both transports: it is refused, or the device has it and goes on,
//! whatever the driver does then.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_fuzz::registers::{self, Counter};
use vmm_virtio::testing::{Buf, Driver, without_filters};

fuzz_target!(init: without_filters(), |input: (bool, u8, Vec<(u16, u8)>, &[u8])| {
    let (is_pci, requests, patches, accesses) = input;
    let new = if is_pci { Driver::new_pci } else { Driver::new };
    let mut driver = new(Counter::new(), 42);
    driver.init(0);
    for _ in 0..requests % 8 {
        driver.queue(1).request(&[Buf::Write(1)]);
    }
    driver.suspend();
    let mut section = driver.save().expect("it can be saved");
    for (at, byte) in &patches {
        let at = usize::from(*at) % section.len();
        section[at] = *byte;
    }
    let restored = driver.beside(Counter::new());
    drop(driver);
    match restored.load(&section) {
        Ok(()) => {
            restored.resume();
            restored.control().rouse();
            registers::access(restored, accesses, |_, place| u64::from(place) * 4);
        }
        Err(error) => {
            assert!(!patches.is_empty(), "{error}");
            assert!((1..=4096).contains(&error.to_string().len()), "{error}");
            registers::works(restored);
        }
    }
});
