//! Accesses to a device's registers at arbitrary addresses, of any width and value, with suspends in between.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_virtio::testing::{Buf, Driver};
use vmm_virtio::{ConfigSpace, Fault, MMIO_LEN, Session, Step, VirtioDevice};

/// Answers each chain with the number of chains before it, modulo 256.
struct Counter {
    count: u8,
    config: ConfigSpace,
}

impl VirtioDevice for Counter {
    fn features(&self) -> u64 {
        0xff
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![4, 256]
    }

    fn config_space(&self) -> ConfigSpace {
        self.config.clone()
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        session.drain(queue, |chain| {
            chain.writable().write(&[self.count])?;
            self.count = self.count.wrapping_add(1);
            Ok(Step::Used(1))
        })
    }

    fn config_written(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.config.update(|bytes| bytes[0] = bytes[0].wrapping_add(1));
        session.config_changed();
        Ok(())
    }
}

// Steps of four bytes: the action and width, the register, and a value and its shift.
fuzz_target!(|data: &[u8]| {
    let device = Counter { count: 0, config: ConfigSpace::new([0; 24], 8..16) };
    let mut driver = Driver::new(Box::new(device), 42);
    let mut suspended = false;
    for step in data.chunks_exact(4).take(256) {
        let &[what, place, value, shift] = step else { unreachable!() };
        let width = 1 << (what >> 2 & 3);
        // Registers are 4 bytes apart up to the configuration space; some accesses are unaligned, some at the end.
        let offset = match what >> 4 {
            0 => u64::from(place),
            1 => MMIO_LEN - 8,
            _ => u64::from(place % 72) * 4,
        };
        let value = u64::from(value) << (shift % 64);
        match what & 3 {
            0 => driver.read_bytes(offset, &mut [0xff; 8][..width]),
            1 if value == 0 && shift & 1 == 1 && !suspended => {
                driver.suspend();
                suspended = true;
            }
            // The machine runs no vCPU while its devices are suspended.
            _ if suspended => {
                driver.resume();
                suspended = false;
            }
            1 => driver.write_bytes(offset, &value.to_le_bytes()[..width]),
            _ => driver.write_bytes(offset & !3, &(value as u32).to_le_bytes()),
        }
    }
    if suspended {
        driver.resume();
    }
    driver.init(0);
    assert_eq!(driver.queue(1).request(&[Buf::Write(1)]).len, 1);
});
