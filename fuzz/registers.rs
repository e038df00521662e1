//! Shared by the targets that access a device's registers.

use vmm_virtio::testing::{Buf, Driver};
use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};
use vmm_virtio::{ConfigSpace, Fault, Persistence, Persistent, Session, Step, VirtioDevice};

/// Answers each chain with the number of chains before it, modulo 256.
pub struct Counter {
    count: u8,
    config: ConfigSpace,
}

impl Counter {
    /// With 24 bytes of configuration, of which 8 can be written.
    pub fn new() -> Box<dyn VirtioDevice> {
        Box::new(Self { count: 0, config: ConfigSpace::new([0; 24], 8..16) })
    }
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

    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Own(self)
    }

    fn config_written(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.config.update(|bytes| bytes[0] = bytes[0].wrapping_add(1));
        session.config_changed();
        Ok(())
    }
}

/// The number of chains, modulo 256.
pub struct Count(u8);

impl State for Count {
    const KIND: &'static str = "fuzz.counter";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.u8(self.0);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        fields.u8("count").map(Self)
    }
}

impl Persistent for Counter {
    type State = Count;

    fn save(&mut self) -> Result<Count, String> {
        Ok(Count(self.count))
    }

    fn load(&mut self, state: Count) -> Result<(), StateError> {
        self.count = state.0;
        Ok(())
    }
}

/// Performs steps of four bytes: the action and width, the place, and a value and its shift. `offset` makes the offset of a place, the
/// upper half of the action being the first argument. Afterwards the device must work.
///
/// # Panics
/// It doesn't.
pub fn access(driver: Driver, steps: &[u8], offset: impl Fn(u8, u8) -> u64) {
    let mut suspended = false;
    for step in steps.chunks_exact(4).take(256) {
        let &[what, place, value, shift] = step else { unreachable!() };
        let width = 1 << (what >> 2 & 3);
        let offset = offset(what >> 4, place);
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
    works(driver);
}

/// The device can be reset and initialised, and then serves a request.
///
/// # Panics
/// It doesn't.
pub fn works(mut driver: Driver) {
    driver.init(0);
    assert_eq!(driver.queue(1).request(&[Buf::Write(1)]).len, 1);
}
