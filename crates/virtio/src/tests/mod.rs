//! The core, tested through a driver where possible.

mod allocations;
mod buffers;
mod control;
mod drain;
mod event_idx;
mod failure;
mod lending;
mod saved;
mod session;
mod walker;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::testing::Driver;
use crate::{ConfigSpace, Fault, Session, Undelivered, VirtioDevice};

type Act = Box<dyn FnMut(&mut Session) -> Result<(), Fault> + Send>;

/// A device with methods defined by the test; it has one queue by default.
struct Scripted {
    sizes: Vec<u16>,
    config: ConfigSpace,
    start: Act,
    process: Act,
    event: Act,
    config_written: Act,
    stop: Box<dyn FnMut(&mut Session) + Send>,
    deliver: Box<dyn FnMut() -> Vec<Undelivered> + Send>,
}

impl Scripted {
    /// A device that only has `process`.
    fn new(process: impl FnMut(&mut Session) -> Result<(), Fault> + Send + 'static) -> Self {
        Self {
            sizes: vec![16],
            config: ConfigSpace::read_only([]),
            start: Box::new(|_| Ok(())),
            process: Box::new(process),
            event: Box::new(|_| Ok(())),
            config_written: Box::new(|_| Ok(())),
            stop: Box::new(|_| ()),
            deliver: Box::new(Vec::new),
        }
    }

    fn driver(self) -> Driver {
        Driver::new(Box::new(self), 42)
    }

    fn running(self, features: u64) -> Driver {
        let mut driver = self.driver();
        driver.init(features);
        driver
    }

    /// With the PCI transport.
    fn function(self) -> Driver {
        Driver::new_pci(Box::new(self), 42)
    }
}

impl VirtioDevice for Scripted {
    fn queue_sizes(&self) -> Vec<u16> {
        self.sizes.clone()
    }

    fn config_space(&self) -> ConfigSpace {
        self.config.clone()
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        (self.start)(session)
    }

    fn process(&mut self, _queue: usize, session: &mut Session) -> Result<(), Fault> {
        (self.process)(session)
    }

    fn event(&mut self, _token: u32, session: &mut Session) -> Result<(), Fault> {
        (self.event)(session)
    }

    fn config_written(&mut self, session: &mut Session) -> Result<(), Fault> {
        (self.config_written)(session)
    }

    fn stop(&mut self, session: &mut Session) {
        (self.stop)(session);
    }

    fn deliver(&mut self, _patience: Duration) -> Vec<Undelivered> {
        (self.deliver)()
    }
}

/// Shared between a device's thread and its test.
type SharedValue<T> = Arc<Mutex<T>>;

fn shared_value<T: Default>() -> (SharedValue<T>, SharedValue<T>) {
    let value = SharedValue::default();
    (Arc::clone(&value), value)
}
