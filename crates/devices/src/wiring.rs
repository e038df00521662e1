//! What a device is built with, and what comes of it.

use std::fmt;
use std::io;
use std::sync::Arc;

use vmm_bus::{BusDevice, IrqLine, Output};

use crate::{PowerButton, SerialLine};

/// What a device may be connected to.
#[derive(Debug)]
pub struct Wiring {
    output: Arc<Output>,
    interrupt: Option<IrqLine>,
}

impl Wiring {
    /// Wiring for one device, in a machine that prints to `output`.
    pub fn new(output: Arc<Output>) -> Self {
        Self { output, interrupt: None }
    }

    /// The queue of all that the machine prints: one for all devices, so that the order is the guest's. It goes where `serial` of
    /// the config says.
    pub fn output(&self) -> Arc<Output> {
        Arc::clone(&self.output)
    }

    /// The device's interrupt line, made at the first call. It goes to the global system interrupt of the device's place, and to
    /// nowhere on a machine without interrupt controllers.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn interrupt(&mut self) -> io::Result<IrqLine> {
        let line = match self.interrupt.take() {
            Some(line) => line,
            None => IrqLine::new()?,
        };
        Ok(self.interrupt.insert(line).clone())
    }

    /// The interrupt line, if the device asked for it.
    pub fn into_interrupt(self) -> Option<IrqLine> {
        self.interrupt
    }
}

/// A device, and what of it is the host's to use. The first device of a machine that offers something is the one that is used.
pub struct Built {
    /// Its registers.
    pub device: Arc<dyn BusDevice>,
    /// Its other side is the console that `serial` of the config is about.
    pub serial: Option<Arc<dyn SerialLine>>,
    /// Its other side is whoever presses the power button.
    pub power_button: Option<Arc<dyn PowerButton>>,
}

impl Built {
    /// A device that the host has no use for, by value. One that it has a use for is passed as a clone of its `Arc`.
    pub fn new(device: impl BusDevice + 'static) -> Self {
        Self { device: Arc::new(device), serial: None, power_button: None }
    }

    /// Offers the host's end of a serial line.
    pub fn with_serial(self, serial: Arc<dyn SerialLine>) -> Self {
        Self { serial: Some(serial), ..self }
    }

    /// Offers a power button.
    pub fn with_power_button(self, power_button: Arc<dyn PowerButton>) -> Self {
        Self { power_button: Some(power_button), ..self }
    }
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device: _, serial, power_button } = self;
        f.debug_struct("Built")
            .field("serial", serial)
            .field("power_button", power_button)
            .finish_non_exhaustive()
    }
}
